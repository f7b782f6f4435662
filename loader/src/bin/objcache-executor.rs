//! `objcache-executor` runs what another process loads into it, over the socket that is its standard input: see
//! `objcache_loader::Executor`. It ends when the other side does.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // Runs what it is sent: that is its purpose.
fn main() -> ExitCode {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    // Code that is called may read the standard input: it gets none.
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map(UnixStream::from);
    let taken = File::open("/dev/null").and_then(|null| Ok(rustix::stdio::dup2_stdin(null)?));
    let served = socket.map_err(Into::into).and_then(|socket| {
        taken?;
        // SAFETY: whoever started this program holds the other end.
        unsafe { objcache_loader::serve_executor(socket) }
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("objcache-executor: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("objcache-executor: only Linux has what this needs");
    ExitCode::FAILURE
}
