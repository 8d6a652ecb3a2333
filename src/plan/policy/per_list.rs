//! What a policy keeps of each of its lists.

/// One of each list, from the time on when the list is first named.
#[derive(Debug, Default)]
pub(super) struct PerList<T>(Vec<T>);

impl<T: Default> PerList<T> {
    /// That of a list.
    pub(super) fn of(&mut self, list: u16) -> &mut T {
        let at = usize::from(list);
        if self.0.len() <= at {
            self.0.resize_with(at + 1, T::default);
        }
        &mut self.0[at]
    }

    /// That of a list, if it was ever named.
    pub(super) fn find(&self, list: u16) -> Option<&T> {
        self.0.get(usize::from(list))
    }

    /// All there are.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// Bytes of memory that they take, without what they hold.
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<T>()
    }
}
