//! This process's end of an executor.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::protocol::{ARGUMENTS, Request, receive_reply, send_request};
use crate::resolver::SymbolResolver;

/// A process that runs what is loaded for it. Clones are the same one, which ends when all are dropped, and the images
/// in its memory.
///
/// One request is under way at a time: who loads or asks while a call runs waits for the call to return.
#[derive(Clone)]
pub struct Executor {
    shared: Arc<Shared>,
}

struct Shared {
    /// Whose it is: a child that was forked has a copy of all this, and must leave the executor alone.
    process: u32,
    connection: Mutex<Connection>,
    /// Dropped after the connection, by which the process knows that it is done.
    child: Mutex<Option<Child>>,
}

struct Connection {
    stream: UnixStream,
    /// Why nothing more can be asked.
    ended: Option<String>,
}

/// An executor did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// It is gone, or does not answer: neither this nor anything later can be had of it.
    #[error("the executor is gone: {0}")]
    Gone(String),
    /// It said why not.
    #[error("the executor: {0}")]
    Refused(String),
}

impl Executor {
    /// Starts a program that [serves](super::serve_executor) the socket that is its standard input, as `objcache-executor` does.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        // The command keeps its copy of the socket, and with it the other side would stay open.
        command.stdin(Stdio::null());
        let executor = Self::connected(ours);
        *executor.shared.child.lock() = Some(child);
        Ok(executor)
    }

    /// An executor that something else started.
    pub fn connected(stream: UnixStream) -> Self {
        let connection = Mutex::new(Connection { stream, ended: None });
        Executor {
            shared: Arc::new(Shared { process: std::process::id(), connection, child: Mutex::new(None) }),
        }
    }

    /// How long to wait for answers, calls included. One that does not come in time is an error, the last: the process is
    /// killed if it was [started](Self::start) from here. Default: as long as it takes.
    ///
    /// # Errors
    /// A time of zero.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let connection = self.shared.connection.lock();
        connection.stream.set_read_timeout(timeout)?;
        connection.stream.set_write_timeout(timeout)
    }

    /// Calls a function there that takes at most six integers or addresses and returns one or nothing.
    ///
    /// # Safety
    /// There must be such a function at that address in the executor, with its calling convention. What it does there is
    /// for the caller to know.
    ///
    /// # Errors
    /// [`RemoteError::Gone`], for instance because the function crashed. More than six arguments are refused.
    #[allow(unsafe_code)] // Runs code that the caller vouches for, elsewhere.
    pub unsafe fn call(&self, address: u64, arguments: &[u64]) -> Result<u64, RemoteError> {
        let mut registers = [0; ARGUMENTS];
        let places = registers.get_mut(..arguments.len());
        let places = places.ok_or_else(|| RemoteError::Refused("more than six arguments".to_owned()))?;
        places.copy_from_slice(arguments);
        self.ask(&Request::Call { address, arguments: registers })
    }

    /// The address of a symbol of the executor's process.
    ///
    /// # Errors
    /// [`RemoteError::Gone`].
    pub fn address(&self, name: &str) -> Result<Option<u64>, RemoteError> {
        let address = self.ask(&Request::Resolve { name: name.to_owned() })?;
        Ok((address != 0).then_some(address))
    }

    pub(super) fn ask(&self, request: &Request) -> Result<u64, RemoteError> {
        self.ask_with(request, None)
    }

    pub(super) fn ask_with(
        &self,
        request: &Request,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<u64, RemoteError> {
        if self.shared.is_anothers() {
            return Err(RemoteError::Gone(
                "it is the executor of the process that this one was forked from".to_owned(),
            ));
        }
        let mut connection = self.shared.connection.lock();
        if let Some(why) = &connection.ended {
            return Err(RemoteError::Gone(why.clone()));
        }
        let stream = &mut connection.stream;
        let answered = send_request(stream, request, file).and_then(|()| receive_reply(stream));
        match answered {
            Ok(reply) => reply.map_err(RemoteError::Refused),
            Err(error) => {
                let why = self.shared.end(&error);
                connection.ended = Some(why.clone());
                Err(RemoteError::Gone(why))
            }
        }
    }
}

impl Shared {
    fn is_anothers(&self) -> bool {
        self.process != std::process::id()
    }

    /// Replies after this one would answer other requests. The process is ended, and what it said last is the reason.
    fn end(&self, error: &io::Error) -> String {
        let Some(mut child) = self.child.lock().take() else { return error.to_string() };
        // It may have ended by itself, with a status that says more.
        let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if is_late {
            let _ = child.kill();
        }
        match child.wait() {
            Ok(_) if is_late => "it did not answer in time and was killed".to_owned(),
            Ok(status) => format!("it ended with {status}"),
            Err(_) => error.to_string(),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.is_anothers() {
            return;
        }
        let connection = self.connection.get_mut();
        // The end of what it reads. A call is not under way: that would hold the executor.
        let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        if let Some(mut child) = self.child.get_mut().take() {
            let _ = child.wait();
        }
    }
}

/// Names mean what they mean in the executor's process. One that is gone knows none.
impl SymbolResolver for Executor {
    fn resolve(&self, name: &str) -> Option<u64> {
        self.address(name).ok().flatten()
    }
}
