//! Buffers that bytes pass through on their way between two sockets. A buffer
//! is held only while bytes are in it: a connection that waits holds none. Each
//! thread keeps a few for whoever reads next, so that what is read lands in
//! memory that the processor still has at hand.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncWrite, ReadBuf};

/// Bytes of one buffer. The more there are in one syscall, the fewer wake-ups they cost at the
/// other side; twice as many save little more, and two are in use at once.
pub const SIZE: usize = 256 * 1024;
/// Bytes copied at once. glibc copies more than about 2 KiB by `rep movsb`, which was measured
/// (2.36, AMD EPYC) to run at a tenth of its speed where the target lies 1 to 15 bytes beyond the
/// source within a page: just where a record's header of 5 bytes, or a frame's of 9, puts it.
pub const PIECE: usize = 2048;
/// Buffers that a thread keeps.
const KEPT: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer on loan. Dropped, it goes back.
#[derive(Debug)]
pub struct Buffer {
    memory: Box<[u8]>,
    begin: usize,
    end: usize,
}

impl Buffer {
    /// An empty one.
    #[must_use]
    pub fn lend() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self {
            memory: spare.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()),
            begin: 0,
            end: 0,
        }
    }

    /// Lets `read` fill an empty buffer; what it returned, and how many bytes came.
    pub fn fill<T>(&mut self, read: impl FnOnce(&mut ReadBuf<'_>) -> T) -> (T, usize) {
        let mut room = ReadBuf::new(&mut self.memory);
        let result = read(&mut room);
        (self.begin, self.end) = (0, room.filled().len());
        (result, self.end)
    }

    /// What is in it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.begin..self.end]
    }

    /// The first `count` bytes have left.
    pub fn advance(&mut self, count: usize) {
        self.begin = self.end.min(self.begin + count);
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.begin == self.end
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        // A thread that ends has no place to keep it.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(memory);
            }
        });
    }
}

/// Bytes that are cheaper to copy together than to hand to the kernel one by one.
const SMALL: usize = 1024;

/// Writes several slices. A few short ones, such as a head and its body, go as one: the kernel
/// takes a single slice by a shorter way.
pub fn write_together<S: AsyncWrite + Unpin>(
    io: &mut S,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let io = Pin::new(io);
    if let [only] = bufs {
        return io.poll_write(cx, only);
    }
    let total: usize = bufs.iter().map(|buf| buf.len()).sum();
    if total > SMALL {
        return io.poll_write_vectored(cx, bufs);
    }
    let mut together = [0; SMALL];
    let mut end = 0;
    for buf in bufs {
        together[end..end + buf.len()].copy_from_slice(buf);
        end += buf.len();
    }
    io.poll_write(cx, &together[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_is_read_from_the_front() {
        let mut buffer = Buffer::lend();
        assert!(buffer.is_empty());
        let ((), count) = buffer.fill(|room| room.put_slice(b"abc"));
        assert_eq!((count, buffer.bytes()), (3, &b"abc"[..]));
        buffer.advance(2);
        assert_eq!(buffer.bytes(), b"c");
        buffer.advance(1);
        assert!(buffer.is_empty());
    }

    #[test]
    fn slices_leave_in_their_order_short_or_long() {
        let mut context = Context::from_waker(std::task::Waker::noop());
        for length in [0, 1, SMALL / 2, SMALL] {
            let (head, body) = (vec![1; length], vec![2; length]);
            let slices = [IoSlice::new(&head), IoSlice::new(&body)];
            let mut written = Vec::new();
            let poll = write_together(&mut written, &mut context, &slices);
            assert!(matches!(poll, Poll::Ready(Ok(count)) if count == written.len()));
            let whole = [head.clone(), body.clone()].concat();
            assert_eq!(written, whole[..written.len()], "{length}");
            assert!(written.len() == whole.len() || length > SMALL / 2);
        }
    }

    #[test]
    fn a_buffer_given_back_is_lent_again_empty() {
        let mut first = Buffer::lend();
        let place = first.memory.as_ptr();
        first.fill(|room| room.put_slice(b"abc"));
        drop(first);
        let second = Buffer::lend();
        assert_eq!(second.memory.as_ptr(), place);
        assert!(second.is_empty());
    }

    #[test]
    fn a_thread_keeps_few() {
        drop((0..KEPT * 2).map(|_| Buffer::lend()).collect::<Vec<_>>());
        assert_eq!(SPARE.with_borrow(Vec::len), KEPT);
    }
}
