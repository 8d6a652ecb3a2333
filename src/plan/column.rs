//! An array that grows in chunks: nothing moves when it grows, and at most one chunk is unused.

use std::ops::{Index, IndexMut};

/// Elements of a chunk: 32 KiB of the largest. All columns begin a chunk in the same event, which waits for its pages: with
/// 4,096 elements some 200 µs.
const CHUNK: usize = 512;

/// An array without gaps, by number.
#[derive(Debug)]
pub(super) struct Column<T> {
    chunks: Vec<Box<[T; CHUNK]>>,
    blank: T,
}

impl<T: Copy> Column<T> {
    /// An empty one, whose elements are `blank` until they are written.
    pub(super) fn new(blank: T) -> Self {
        Self { chunks: Vec::new(), blank }
    }

    /// Makes sure that element `number` exists.
    pub(super) fn reach(&mut self, number: u32) {
        while self.chunks.len() <= number as usize / CHUNK {
            let chunk: Result<Box<[T; CHUNK]>, _> = vec![self.blank; CHUNK].try_into();
            // A vector of that many elements is an array of that many.
            self.chunks.extend(chunk.ok());
        }
    }

    /// An element, if it exists.
    pub(super) fn find(&self, number: u32) -> Option<&T> {
        self.chunks.get(number as usize / CHUNK).map(|chunk| &chunk[number as usize % CHUNK])
    }

    /// An element, blank where it does not exist.
    pub(super) fn get(&self, number: u32) -> T {
        self.chunks.get(number as usize / CHUNK).map_or(self.blank, |chunk| chunk[number as usize % CHUNK])
    }

    /// All elements, blank ones of the last chunk included.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> + '_ {
        self.chunks.iter_mut().flat_map(|chunk| chunk.iter_mut())
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<T>() + self.chunks.capacity() * size_of::<usize>()
    }
}

impl<T> Index<u32> for Column<T> {
    type Output = T;
    fn index(&self, number: u32) -> &T {
        &self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }
}

impl<T> IndexMut<u32> for Column<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }
}
