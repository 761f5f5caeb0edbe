//! Collections that grow with an index or a search: an error where memory ends, not the end of the process.
use std::collections::{BinaryHeap, HashSet};
use std::hash::Hash;

use crate::Result;

/// Appends an item.
#[inline]
pub(crate) fn push<T>(items: &mut Vec<T>, item: T) -> Result<()> {
    if items.len() == items.capacity() {
        items.try_reserve(1)?;
    }
    items.push(item);
    Ok(())
}

/// Appends items.
pub(crate) fn extend<T>(items: &mut Vec<T>, more: impl ExactSizeIterator<Item = T>) -> Result<()> {
    items.try_reserve(more.len())?;
    items.extend(more);
    Ok(())
}

/// Puts an item into a heap.
#[inline]
pub(crate) fn add<T: Ord>(heap: &mut BinaryHeap<T>, item: T) -> Result<()> {
    if heap.len() == heap.capacity() {
        heap.try_reserve(1)?;
    }
    heap.push(item);
    Ok(())
}

/// Puts an item into a set. False: it was there.
#[inline]
pub(crate) fn insert<T: Eq + Hash>(set: &mut HashSet<T>, item: T) -> Result<bool> {
    if set.len() == set.capacity() {
        set.try_reserve(1)?;
    }
    Ok(set.insert(item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn items_are_added_and_what_no_machine_has_is_an_error() {
        let mut items = Vec::new();
        push(&mut items, 3).unwrap();
        extend(&mut items, [4, 5].into_iter()).unwrap();
        assert_eq!(items, [3, 4, 5]);
        let mut set = HashSet::new();
        assert!(insert(&mut set, 1).unwrap() && !insert(&mut set, 1).unwrap());
        let mut heap = BinaryHeap::new();
        add(&mut heap, 7).unwrap();
        assert_eq!(heap.peek(), Some(&7));
        assert_eq!(memory::ensure(1 << 50).map_err(Error::from), Err(Error::OutOfMemory));
    }
}
