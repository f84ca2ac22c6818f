mod composing;
mod live;
pub(crate) mod net;
