//! What the two processes say to each other: one request, one reply, each a length and then that many bytes. Nothing is
//! believed of a length before it was checked.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// No message is longer: a symbol's name and a little.
const LONGEST: usize = 64 << 10;

/// How many arguments a call has: as many as are passed in registers of x86-64.
pub(super) const ARGUMENTS: usize = 6;

/// What an executor can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Address space of whole pages, in the lowest 2 GiB or anywhere. The answer is its first address.
    Reserve { len: u64, low: bool },
    /// Puts the bytes of the file that comes with the message there, beginning so many bytes further: as many for code,
    /// constants and variables, in whole pages.
    Map { base: u64, skip: u64, segments: [u64; 3] },
    /// Gives reserved address space back, with what was mapped there.
    Free { base: u64 },
    /// The address of a symbol of the executor's process; 0 if there is none.
    Resolve { name: String },
    /// Calls a function of integers. The answer is what it returns.
    Call { address: u64, arguments: [u64; ARGUMENTS] },
}

/// The answer, or why there is none.
pub(super) type Reply = Result<u64, String>;

impl Request {
    fn encode(&self) -> Vec<u8> {
        let numbers = |kind: u8, numbers: &[u64]| {
            let mut bytes = vec![kind];
            numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
            bytes
        };
        match self {
            Request::Reserve { len, low } => numbers(1, &[*len, u64::from(*low)]),
            Request::Map { base, skip, segments: [code, read_only, data] } => {
                numbers(2, &[*base, *skip, *code, *read_only, *data])
            }
            Request::Free { base } => numbers(3, &[*base]),
            Request::Resolve { name } => [&[4], name.as_bytes()].concat(),
            Request::Call { address, arguments } => {
                let [a, b, c, d, e, f] = *arguments;
                numbers(5, &[*address, a, b, c, d, e, f])
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        if *kind == 4 {
            return Some(Request::Resolve { name: String::from_utf8(rest.to_vec()).ok()? });
        }
        let words = rest.chunks_exact(8);
        let is_odd = !words.remainder().is_empty();
        let numbers: Vec<u64> =
            words.filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?))).collect();
        match (kind, &numbers[..]) {
            _ if is_odd => None,
            (1, &[len, low @ 0..=1]) => Some(Request::Reserve { len, low: low == 1 }),
            (2, &[base, skip, ref segments @ ..]) => {
                Some(Request::Map { base, skip, segments: segments.try_into().ok()? })
            }
            (3, &[base]) => Some(Request::Free { base }),
            (5, &[address, ref arguments @ ..]) => {
                Some(Request::Call { address, arguments: arguments.try_into().ok()? })
            }
            _ => None,
        }
    }
}

pub(super) fn send_request(
    stream: &mut UnixStream,
    request: &Request,
    file: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    send(stream, &request.encode(), file)
}

/// The next request, with the file that came along; `None` when the other side is done.
pub(super) fn receive_request(stream: &mut UnixStream) -> io::Result<Option<(Request, Option<OwnedFd>)>> {
    let Some((bytes, file)) = receive(stream)? else { return Ok(None) };
    let request = Request::decode(&bytes).ok_or_else(|| invalid("a request that is none"))?;
    Ok(Some((request, file)))
}

pub(super) fn send_reply(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let bytes = match reply {
        Ok(answer) => [&[0], &answer.to_le_bytes()[..]].concat(),
        Err(why) => [&[1], why.as_bytes()].concat(),
    };
    send(stream, &bytes[..bytes.len().min(LONGEST)], None)
}

pub(super) fn receive_reply(stream: &mut UnixStream) -> io::Result<Reply> {
    let (bytes, _) = receive(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match bytes.split_first() {
        Some((0, answer)) => {
            let answer = answer.try_into().map_err(|_| invalid("an answer of another length"))?;
            Ok(Ok(u64::from_le_bytes(answer)))
        }
        Some((1, why)) => Ok(Err(String::from_utf8_lossy(why).into_owned())),
        _ => Err(invalid("a reply that is none")),
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The length goes first, and with it the file.
fn send(stream: &mut UnixStream, bytes: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if bytes.len() > LONGEST {
        return Err(invalid("the message is too long"));
    }
    let length = (bytes.len() as u32).to_le_bytes();
    let files = file.as_slice();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(invalid("no room for a file"));
    }
    // Without SIGPIPE when the other side is gone.
    let sent =
        rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
    if sent != length.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    stream.write_all(bytes)
}

fn receive(stream: &mut UnixStream) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let into = &mut [IoSliceMut::new(&mut length)];
        match rustix::net::recvmsg(stream.as_fd(), into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?.bytes,
        }
    };
    if received == 0 {
        return Ok(None);
    }
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    stream.read_exact(&mut length[received..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(invalid("a message that is too long"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(Some((bytes, file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        vec![
            Request::Reserve { len: 4096, low: true },
            Request::Map { base: 1 << 40, skip: 0, segments: [4096, 0, 8192] },
            Request::Free { base: 77 },
            Request::Resolve { name: "malloc".to_owned() },
            Request::Call { address: 5, arguments: [1, 2, 3, 4, 5, u64::MAX] },
        ]
    }

    #[test]
    fn requests_and_replies_arrive_as_sent() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for (number, request) in requests().into_iter().enumerate() {
            let file = (number == 1).then(|| file.as_fd());
            send_request(&mut here, &request, file).unwrap();
            let (received, with) = receive_request(&mut there).unwrap().unwrap();
            assert_eq!((received, with.is_some()), (request, number == 1));
        }
        for reply in [Ok(u64::MAX), Err("no".to_owned())] {
            send_reply(&mut there, &reply).unwrap();
            assert_eq!(receive_reply(&mut here).unwrap(), reply);
        }
        drop(there);
        assert!(receive_reply(&mut here).is_err());
        assert!(receive_request(&mut here).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for request in requests() {
            let bytes = request.encode();
            assert_eq!(Request::decode(&bytes), Some(request.clone()));
            if !matches!(request, Request::Resolve { .. }) {
                (0..bytes.len()).for_each(|len| assert_eq!(Request::decode(&bytes[..len]), None));
                assert_eq!(Request::decode(&[&bytes[..], &[0; 8]].concat()), None);
            }
        }
        assert_eq!(Request::decode(&[4, 0xff]), None, "a name that is not UTF-8");
        for message in [&[255, 255, 255, 255, 1][..], &[2, 0, 0, 0, 9], &[9, 0, 0, 0, 3, 0]] {
            let (mut here, there) = UnixStream::pair().unwrap();
            (&there).write_all(message).unwrap();
            drop(there);
            assert!(receive_request(&mut here).is_err(), "{message:?}");
        }
    }
}
