//! Filter columns: values of other columns that lie beside the codes, so that a search judges a condition on them
//! before it looks at a row.
//!
//! A value is a whole number of 1, 2, 4, 8 or 16 bytes; whoever stores something else maps it to one, in its order
//! where the order is to be asked for. On a scan page the values of each block of 32 rows lie column by column (a mask
//! of those that are there, then 32 numbers), all blocks beside each other in front of the codes: a selective
//! condition reads a tenth of the page.
use bytemuck::{Pod, Zeroable};

use crate::{Error, Result};
use vectors::quantised::BLOCK;

/// The most filter columns of an index.
pub const MOST_FILTERS: usize = 8;
/// Values that are looked for one after the other; more are searched for by halving.
const FEW_VALUES: usize = 8;
/// Bytes of a block's mask of the values that are there.
const MASK: usize = 4;

/// How wide the values of each filter column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(C)]
pub struct FilterLayout {
    /// Bytes; 0 behind the last column.
    widths: [u8; MOST_FILTERS],
}

impl FilterLayout {
    /// Columns of 1, 2, 4, 8 or 16 bytes each. None: there are too many, or one has another width.
    pub fn new(widths: &[usize]) -> Option<Self> {
        let mut layout = Self::default();
        for (at, &width) in widths.iter().enumerate() {
            *layout.widths.get_mut(at)? = u8::try_from(width).ok()?;
        }
        (layout.is_sound() && layout.columns() == widths.len()).then_some(layout)
    }

    /// Whether it is one that [`new`](Self::new) gives.
    pub(crate) fn is_sound(&self) -> bool {
        let columns = self.columns();
        self.widths[..columns]
            .iter()
            .all(|width| matches!(width, 1 | 2 | 4 | 8 | 16))
            && self.widths[columns..].iter().all(|&width| width == 0)
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.widths.iter().position(|&width| width == 0).unwrap_or(MOST_FILTERS)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.widths[0] == 0
    }

    fn widths(&self) -> impl Iterator<Item = usize> + '_ {
        self.widths.iter().map(|&width| usize::from(width))
    }

    /// Bytes of a row's values: a mask of those that are there, then each column's.
    pub fn row_bytes(&self) -> usize {
        if self.is_empty() {
            0
        } else {
            1 + self.widths().sum::<usize>()
        }
    }

    /// Bytes of the values of a block of 32 rows.
    pub(crate) fn block_bytes(&self) -> usize {
        self.columns() * MASK + self.widths().sum::<usize>() * BLOCK
    }

    /// Where a column begins in a block's values.
    fn start(&self, column: usize) -> usize {
        column * MASK + self.widths().take(column).sum::<usize>() * BLOCK
    }

    /// Appends a row's values; none for NULL. What a column's width does not hold is cut off.
    ///
    /// # Errors
    /// As many values as columns are needed: others than block 0 states.
    pub fn put_row(&self, values: &[Option<i128>], out: &mut Vec<u8>) -> Result<()> {
        if values.len() != self.columns() {
            let what = format!("{} filter columns where {} are expected", self.columns(), values.len());
            return Err(Error::corrupted(0, what));
        }
        if self.is_empty() {
            return Ok(());
        }
        let there = values
            .iter()
            .enumerate()
            .fold(0u8, |mask, (at, value)| mask | u8::from(value.is_some()) << at);
        out.push(there);
        for (value, width) in values.iter().zip(self.widths()) {
            out.extend_from_slice(&value.unwrap_or(0).to_le_bytes()[..width]);
        }
        Ok(())
    }

    /// Puts a row's values into its place in a block's.
    pub(crate) fn put(&self, block: &mut [u8], within: usize, row: &[u8]) {
        let Some((&there, mut values)) = row.split_first() else {
            return;
        };
        let mut start = 0;
        for (column, width) in self.widths().take(self.columns()).enumerate() {
            let mut mask = mask_at(block, start) & !(1 << within);
            mask |= u32::from(there >> column & 1) << within;
            block[start..start + MASK].copy_from_slice(&mask.to_le_bytes());
            let (value, rest) = values.split_at(width);
            block[start + MASK + within * width..][..width].copy_from_slice(value);
            values = rest;
            start += MASK + width * BLOCK;
        }
    }

    /// Appends the values of a row, as [`put`](Self::put) takes them.
    pub(crate) fn take(&self, block: &[u8], within: usize, row: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        let (first, mut start, mut there) = (row.len(), 0, 0u8);
        row.push(0);
        for (column, width) in self.widths().take(self.columns()).enumerate() {
            there |= ((mask_at(block, start) >> within & 1) as u8) << column;
            row.extend_from_slice(&block[start + MASK + within * width..][..width]);
            start += MASK + width * BLOCK;
        }
        row[first] = there;
    }

    /// Whether a row's values are ones that [`put_row`](Self::put_row) writes: nothing where no value is.
    pub(crate) fn is_row_sound(&self, row: &[u8]) -> bool {
        let Some((&there, mut values)) = row.split_first() else {
            return self.is_empty();
        };
        self.widths().take(self.columns()).enumerate().all(|(column, width)| {
            let (value, rest) = values.split_at(width);
            values = rest;
            there >> column & 1 == 1 || value.iter().all(|&byte| byte == 0)
        })
    }
}

fn mask_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// From the first to the second, both among them.
    Within(i128, i128),
    /// One of these.
    OneOf(Vec<i128>),
    /// NULL.
    Null,
    /// Not NULL.
    NotNull,
}

/// Conditions on filter columns, all of which a row must satisfy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    tests: Vec<(usize, Test)>,
    impossible: bool,
}

impl Filter {
    /// Every row passes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition on a column, counted from 0.
    pub fn add(&mut self, column: usize, test: Test) {
        let test = match test {
            Test::OneOf(mut values) => {
                values.sort_unstable();
                values.dedup();
                Test::OneOf(values)
            }
            test => test,
        };
        self.tests.push((column, test));
    }

    /// No row passes.
    pub fn refuse_all(&mut self) {
        self.impossible = true;
    }

    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        self.tests.is_empty() && !self.impossible
    }

    /// Whether no row can pass.
    pub fn is_impossible(&self) -> bool {
        let never = |test: &Test| match test {
            Test::Within(low, high) => low > high,
            Test::OneOf(values) => values.is_empty(),
            Test::Null | Test::NotNull => false,
        };
        self.impossible || self.tests.iter().any(|(_, test)| never(test))
    }

    /// Whether an index with these columns has all that it asks for.
    pub(crate) fn fits(&self, layout: &FilterLayout) -> bool {
        self.tests.iter().all(|&(column, _)| column < layout.columns())
    }

    /// Which of these rows of a block pass, by the block's values.
    pub(crate) fn passing(&self, layout: &FilterLayout, block: &[u8], rows: u32) -> u32 {
        let mut left = rows;
        for (column, test) in &self.tests {
            if left == 0 {
                break;
            }
            let start = layout.start(*column);
            let width = usize::from(layout.widths[*column]);
            let values = &block[start + MASK..start + MASK + width * BLOCK];
            let there = mask_at(block, start);
            left &= match test {
                Test::Null => !there,
                Test::NotNull => there,
                Test::Within(low, high) => there & within(width, values, *low, *high),
                Test::OneOf(some) if some.len() <= FEW_VALUES => {
                    there
                        & some
                            .iter()
                            .fold(0, |mask, &value| mask | within(width, values, value, value))
                }
                Test::OneOf(many) => {
                    let mut passing = 0;
                    let mut asked = left & there;
                    while asked != 0 {
                        let at = asked.trailing_zeros() as usize;
                        asked &= asked - 1;
                        let value = number(&values[at * width..(at + 1) * width]);
                        passing |= u32::from(many.binary_search(&value).is_ok()) << at;
                    }
                    passing
                }
            };
        }
        left
    }
}

/// A stored value.
fn number(bytes: &[u8]) -> i128 {
    let negative = bytes.last().is_some_and(|&byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    i128::from_le_bytes(wide)
}

/// Which of a block's values lie within two.
fn within(width: usize, values: &[u8], low: i128, high: i128) -> u32 {
    /// For one type of number: bounds that it does not hold are those that it does.
    macro_rules! of {
        ($number:ty) => {{
            let (least, most) = (i128::from(<$number>::MIN), i128::from(<$number>::MAX));
            if low > high || low > most || high < least {
                return 0;
            }
            let (low, high) = (low.max(least) as $number, high.min(most) as $number);
            // One comparison: what lies below wraps around to far above.
            let span = high.wrapping_sub(low).cast_unsigned();
            let mut hits = [0u8; BLOCK];
            for (hit, bytes) in hits.iter_mut().zip(values.chunks_exact(size_of::<$number>())) {
                let mut value = [0; size_of::<$number>()];
                value.copy_from_slice(bytes);
                let above = <$number>::from_le_bytes(value).wrapping_sub(low).cast_unsigned();
                *hit = u8::from(above <= span);
            }
            mask_of(&hits)
        }};
    }
    match width {
        1 => of!(i8),
        2 => of!(i16),
        4 => of!(i32),
        8 => of!(i64),
        _ => of!(i128),
    }
}

/// The bits of bytes that are 0 or 1: a product puts those of eight bytes beside each other.
fn mask_of(hits: &[u8; BLOCK]) -> u32 {
    const BESIDE: u64 = 0x0102_0408_1020_4080;
    hits.chunks_exact(8).enumerate().fold(0, |mask, (at, eight)| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(eight);
        let bits = u64::from_le_bytes(bytes).wrapping_mul(BESIDE) >> 56;
        mask | (bits as u32) << (8 * at)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDTHS: [usize; 5] = [1, 2, 4, 8, 16];

    fn cut(value: i128, width: usize) -> i128 {
        number(&value.to_le_bytes()[..width])
    }

    fn satisfies(value: Option<i128>, test: &Test) -> bool {
        match (test, value) {
            (Test::Null, value) => value.is_none(),
            (_, None) => false,
            (Test::NotNull, _) => true,
            (Test::Within(low, high), Some(value)) => *low <= value && value <= *high,
            (Test::OneOf(values), Some(value)) => values.contains(&value),
        }
    }

    fn value() -> impl Strategy<Value = i128> {
        prop_oneof![
            -3i128..4,
            any::<i128>(),
            any::<i64>().prop_map(i128::from),
            Just(i128::MIN),
            Just(i128::MAX),
            Just(i128::from(i32::MAX)),
            Just(i128::from(i64::MIN)),
        ]
    }

    fn test() -> impl Strategy<Value = Test> {
        prop_oneof![
            (value(), value()).prop_map(|(a, b)| Test::Within(a, b)),
            prop::collection::vec(value(), 0..20).prop_map(Test::OneOf),
            Just(Test::Null),
            Just(Test::NotNull),
        ]
    }

    proptest! {
        #[test]
        fn a_block_judges_each_row_as_its_own_value_is_judged(
            widths in prop::collection::vec(0usize..5, 1..=MOST_FILTERS),
            rows in prop::collection::vec(prop::collection::vec(prop::option::of(value()), MOST_FILTERS), BLOCK),
            tests in prop::collection::vec((0usize..MOST_FILTERS, test()), 0..4),
            live in any::<u32>(),
        ) {
            let widths: Vec<usize> = widths.into_iter().map(|at| WIDTHS[at]).collect();
            let layout = FilterLayout::new(&widths).unwrap();
            let mut block = vec![0xa5; layout.block_bytes()];
            let mut kept = Vec::new();
            for (at, row) in rows.iter().enumerate() {
                let values: Vec<Option<i128>> =
                    row.iter().zip(&widths).map(|(value, &width)| value.map(|value| cut(value, width))).collect();
                let mut bytes = Vec::new();
                layout.put_row(&values, &mut bytes).unwrap();
                prop_assert_eq!(bytes.len(), layout.row_bytes());
                prop_assert!(layout.is_row_sound(&bytes));
                layout.put(&mut block, at, &bytes);
                kept.push((values, bytes));
            }
            let mut filter = Filter::new();
            let tests: Vec<(usize, Test)> =
                tests.into_iter().map(|(column, test)| (column % widths.len(), test)).collect();
            for (column, test) in &tests {
                filter.add(*column, test.clone());
            }
            let passing = filter.passing(&layout, &block, live);
            for (at, (values, bytes)) in kept.iter().enumerate() {
                let mut back = Vec::new();
                layout.take(&block, at, &mut back);
                prop_assert_eq!(&back, bytes);
                let expected =
                    live >> at & 1 == 1 && tests.iter().all(|(column, test)| satisfies(values[*column], test));
                prop_assert_eq!(passing >> at & 1 == 1, expected, "row {} {:?} {:?}", at, values, &tests);
                prop_assert!(!(expected && filter.is_impossible()));
            }
        }
    }

    #[test]
    fn layouts_of_other_widths_and_values_of_other_columns_are_refused() {
        assert!(FilterLayout::new(&[3]).is_none() && FilterLayout::new(&[4, 0, 4]).is_none());
        assert!(FilterLayout::new(&[4; MOST_FILTERS + 1]).is_none() && FilterLayout::new(&[260]).is_none());
        assert!(FilterLayout::new(&[]).unwrap().is_empty());
        let layout = FilterLayout::new(&[4, 16]).unwrap();
        assert!(matches!(
            layout.put_row(&[Some(1)], &mut Vec::new()),
            Err(Error::Corrupted { block: 0, .. })
        ));
        assert!(
            !layout.is_row_sound(&[vec![0b10, 1, 0, 0, 0], vec![0; 16]].concat()),
            "a value where none is"
        );
    }
}
