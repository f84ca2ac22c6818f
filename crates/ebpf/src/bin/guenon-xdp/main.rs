//! The XDP programs: thin entry points over the library.
#![no_std]
#![no_main]
