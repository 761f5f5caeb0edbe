//! Answers, as bytes: all numbers little-endian, texts with their length before them.

use thiserror::Error;

/// What came is not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an answer of {0} bytes is cut short or damaged")]
pub struct Garbled(usize);

/// Where a row lies on its shard, for as long as the transaction that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// OID of the table.
    pub table: u32,
    /// Block within it.
    pub block: u32,
    /// Number within the block.
    pub offset: u16,
}

/// A reference near to what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Near {
    /// Cosine distance.
    pub distance: f64,
    /// Its key, as text.
    pub key: String,
    /// Where its row lies.
    pub place: Place,
}

/// What verification compares of a reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Pictured {
    /// Where its row lies.
    pub place: Place,
    /// Its descriptor; empty: none.
    pub descriptor: Vec<f32>,
    /// Its sketch.
    pub sketch: Option<Vec<u8>>,
}

const NONE: u32 = u32::MAX;

/// The answer of part `part`: its nearest references.
#[must_use]
pub fn near_to(part: u32, rows: &[Near]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + rows.len() * 40);
    put(&mut bytes, part);
    put(&mut bytes, length(rows.len()));
    for row in rows {
        bytes.extend(row.distance.to_le_bytes());
        put_place(&mut bytes, row.place);
        put_bytes(&mut bytes, row.key.as_bytes());
    }
    bytes
}

/// As [`near_to`] wrote it.
///
/// # Errors
/// [`Garbled`] where it did not.
pub fn near_from(bytes: &[u8]) -> Result<(u32, Vec<Near>), Garbled> {
    let mut reader = Reader::of(bytes);
    let part = reader.number()?;
    let rows = reader.rows(|reader| {
        Ok(Near {
            distance: f64::from_le_bytes(reader.array()?),
            place: reader.place()?,
            key: String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| Garbled(bytes.len()))?,
        })
    })?;
    reader.end()?;
    Ok((part, rows))
}

/// The answer of part `part`: what verification compares.
#[must_use]
pub fn pictured_to(part: u32, rows: &[Pictured]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, part);
    put(&mut bytes, length(rows.len()));
    for row in rows {
        put_place(&mut bytes, row.place);
        put_bytes(&mut bytes, &elements_to(&row.descriptor));
        match &row.sketch {
            Some(sketch) => put_bytes(&mut bytes, sketch),
            None => put(&mut bytes, NONE),
        }
    }
    bytes
}

/// As [`pictured_to`] wrote it.
///
/// # Errors
/// [`Garbled`] where it did not.
pub fn pictured_from(bytes: &[u8]) -> Result<(u32, Vec<Pictured>), Garbled> {
    let mut reader = Reader::of(bytes);
    let part = reader.number()?;
    let rows = reader.rows(|reader| {
        let place = reader.place()?;
        let descriptor = elements_from(reader.bytes()?)?;
        let sketch = match reader.number()? {
            NONE => None,
            length => Some(reader.take(length as usize)?.to_vec()),
        };
        Ok(Pictured {
            place,
            descriptor,
            sketch,
        })
    })?;
    reader.end()?;
    Ok((part, rows))
}

/// A descriptor.
#[must_use]
pub fn elements_to(elements: &[f32]) -> Vec<u8> {
    elements.iter().flat_map(|element| element.to_le_bytes()).collect()
}

/// As [`elements_to`] wrote it.
///
/// # Errors
/// [`Garbled`] where it did not.
pub fn elements_from(bytes: &[u8]) -> Result<Vec<f32>, Garbled> {
    let (elements, rest) = bytes.as_chunks::<4>();
    match rest {
        [] => Ok(elements.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
        _ => Err(Garbled(bytes.len())),
    }
}

/// Where rows lie that are asked for.
#[must_use]
pub fn places_to(places: &[Place]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + places.len() * 10);
    put(&mut bytes, length(places.len()));
    for place in places {
        put_place(&mut bytes, *place);
    }
    bytes
}

/// As [`places_to`] wrote it.
///
/// # Errors
/// [`Garbled`] where it did not.
pub fn places_from(bytes: &[u8]) -> Result<Vec<Place>, Garbled> {
    let mut reader = Reader::of(bytes);
    let places = reader.rows(Reader::place)?;
    reader.end()?;
    Ok(places)
}

fn length(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(NONE)
}

fn put(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend(number.to_le_bytes());
}

fn put_bytes(bytes: &mut Vec<u8>, more: &[u8]) {
    put(bytes, length(more.len()));
    bytes.extend(more);
}

fn put_place(bytes: &mut Vec<u8>, place: Place) {
    put(bytes, place.table);
    put(bytes, place.block);
    bytes.extend(place.offset.to_le_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
    all: usize,
}

impl<'a> Reader<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Reader {
            rest: bytes,
            all: bytes.len(),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Garbled(self.all))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        let all = self.all;
        self.take(N)?.try_into().map_err(|_| Garbled(all))
    }

    fn number(&mut self) -> Result<u32, Garbled> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        let count = self.number()?;
        self.take(count as usize)
    }

    fn place(&mut self) -> Result<Place, Garbled> {
        Ok(Place {
            table: self.number()?,
            block: self.number()?,
            offset: u16::from_le_bytes(self.array()?),
        })
    }

    fn rows<T>(&mut self, mut row: impl FnMut(&mut Self) -> Result<T, Garbled>) -> Result<Vec<T>, Garbled> {
        let count = self.number()?;
        // No room is made for what is only said to come.
        let mut rows = Vec::new();
        for _ in 0..count {
            rows.push(row(self)?);
        }
        Ok(rows)
    }

    fn end(self) -> Result<(), Garbled> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Garbled(self.all)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = Place> {
        (any::<u32>(), any::<u32>(), any::<u16>()).prop_map(|(table, block, offset)| Place { table, block, offset })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            part in any::<u32>(),
            near in prop::collection::vec((0.0..2.0_f64, ".{0,9}", place()), 0..9),
            pictured in prop::collection::vec(
                (
                    place(),
                    prop::collection::vec(-1.0..1.0_f32, 0..5),
                    prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
                ),
                0..5,
            ),
        ) {
            let near: Vec<Near> =
                near.into_iter().map(|(distance, key, place)| Near { distance, key, place }).collect();
            prop_assert_eq!(near_from(&near_to(part, &near)), Ok((part, near.clone())));
            let pictured: Vec<Pictured> = pictured
                .into_iter()
                .map(|(place, descriptor, sketch)| Pictured { place, descriptor, sketch })
                .collect();
            prop_assert_eq!(pictured_from(&pictured_to(part, &pictured)), Ok((part, pictured.clone())));
            let places: Vec<Place> = near.iter().map(|near| near.place).collect();
            prop_assert_eq!(places_from(&places_to(&places)), Ok(places));
        }

        #[test]
        fn what_is_cut_short_or_has_more_is_refused(key in ".{1,9}", at in any::<prop::sample::Index>()) {
            let place = Place { table: 1, block: 2, offset: 3 };
            let whole = near_to(0, &[Near { distance: 0.5, key, place }]);
            prop_assert!(near_from(&whole[..at.index(whole.len())]).is_err());
            let more = [whole, vec![0]].concat();
            prop_assert!(near_from(&more).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let _ = (near_from(&bytes), pictured_from(&bytes), places_from(&bytes), elements_from(&bytes));
        }
    }
}
