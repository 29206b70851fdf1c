//! Buffers that bytes pass through on their way between two sockets. A buffer
//! is held only while bytes are in it: a connection that waits holds none. Each
//! thread keeps a few for whoever reads next, so that what is read lands in
//! memory that the processor still has at hand.

use std::cell::RefCell;

use tokio::io::ReadBuf;

/// Bytes of one buffer: four full TLS records and what they come in, twice. More does not
/// save a syscall that shows, and leaves the second-level cache.
pub const SIZE: usize = 128 * 1024;
/// Bytes copied at once. glibc (2.36) copies more than about 2 KiB by `rep movsb`, which Zen 3 to
/// 5 do at a tenth of their speed where the target lies 1 to 15 bytes beyond the source within
/// a page: just where a record's header of 5 bytes, or a frame's of 9, puts it.
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
