use std::io;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Why the kernel could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}; is NET_ADMIN granted, and AF_NETLINK not filtered by seccomp?")]
    Open(#[source] io::Error),
    /// The kernel refused.
    #[error("the kernel refused to {what}: {error}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its answer.
        #[source]
        error: io::Error,
    },
    /// The socket failed.
    #[error("netlink socket failed while trying to {what}: {error}")]
    Socket {
        /// What was asked.
        what: String,
        /// What happened.
        #[source]
        error: io::Error,
    },
    /// The tables changed under every attempt to read them.
    #[error("could not {0}: the kernel's table changed during each of {DUMP_ATTEMPTS} attempts to read it; try again")]
    Interrupted(String),
}

impl NetlinkError {
    /// The kernel's error number, if it answered with one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { error, .. } | Self::Socket { error, .. } | Self::Open(error) => error.raw_os_error(),
            Self::Interrupted(_) => None,
        }
    }
}

const DUMP_ATTEMPTS: usize = 10;
/// How long an answer may take, seconds.
const ANSWER_TIMEOUT: i64 = 10;
/// The kernel sends at most 32 KiB at once; a datagram that does not fit is lost.
const BUFFER: usize = 64 * 1024;

/// A request/answer connection to rtnetlink, of the network namespace that the thread was in when it was opened.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        socket.bind_auto().map_err(NetlinkError::Open)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        // The kernel answers at once; should it not, an error is better than to hang.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_TIMEOUT))
            .map_err(|error| NetlinkError::Open(error.into()))?;
        // Both are refinements: filters in dumps (4.20), plain messages in errors (4.12).
        for (option, result) in [
            ("strict checking", socket.set_netlink_get_strict_chk(true)),
            ("capped acknowledgements", socket.set_cap_ack(true)),
        ] {
            if let Err(error) = result {
                tracing::debug!(%error, "this kernel has no netlink {option}");
            }
        }
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Reads a table whole: every message goes to `each`, after `restart` for each attempt.
    ///
    /// # Errors
    ///
    /// [`NetlinkError`]; `what` completes "refused to ...".
    pub fn dump<T: Default>(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        mut each: impl FnMut(&mut T, RouteNetlinkMessage),
    ) -> Result<T, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut table = T::default();
            let whole = self.exchange(what, message.clone(), NLM_F_DUMP, |message| each(&mut table, message))?;
            if whole {
                return Ok(table);
            }
        }
        Err(NetlinkError::Interrupted(what.to_owned()))
    }

    /// Asks for one change and waits for the answer.
    ///
    /// # Errors
    ///
    /// [`NetlinkError`]; `what` completes "refused to ...".
    pub fn change(&mut self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.exchange(what, message, NLM_F_ACK | flags, |_| {}).map(|_| ())
    }

    /// Asks one question and hands over what was answered.
    ///
    /// # Errors
    ///
    /// [`NetlinkError`]; `what` completes "refused to ...".
    pub fn ask(&mut self, what: &str, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut answers = Vec::new();
        self.exchange(what, message, NLM_F_ACK, |answer| answers.push(answer))?;
        Ok(answers)
    }

    /// Sends, and reads up to the end of the answer. False = a dump was interrupted by a change.
    fn exchange(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<bool, NetlinkError> {
        let socket_error = |error| NetlinkError::Socket { what: what.to_owned(), error };
        let refused = |error| NetlinkError::Refused { what: what.to_owned(), error };
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(socket_error)?;

        let mut whole = true;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(socket_error(error)),
            }
            for message in Messages(&self.buffer) {
                if message.header.sequence_number != sequence {
                    continue; // the rest of an answer that was given up
                }
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(refused(io::Error::from_raw_os_error(-done.code)));
                    }
                    NetlinkPayload::Done(_) => return Ok(whole),
                    NetlinkPayload::Error(answer) if answer.code.is_none() => return Ok(whole),
                    NetlinkPayload::Error(answer) => return Err(refused(answer.to_io())),
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
                }
            }
        }
    }
}

/// The messages of one datagram. One that cannot be read is skipped: kernels have attributes that the parser lacks.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl Iterator for Messages<'_> {
    type Item = NetlinkMessage<RouteNetlinkMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let length = NetlinkBuffer::new_checked(self.0).ok()?.length() as usize;
            let (message, rest) = self.0.split_at_checked(length)?;
            // Messages are aligned to four bytes; the last may lack its padding.
            self.0 = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
            match NetlinkMessage::deserialize(message) {
                Ok(message) => return Some(message),
                Err(error) => tracing::debug!(%error, "skipped a netlink message"),
            }
        }
    }
}
