//! What filling and re-embedding make of images: one is decoded while the networks run over those before it.

use pgrx::prelude::*;

use super::owned::{OwnedSet, by_owner};
use crate::embed::catalogue::Model;
use crate::embed::picture::read_matchable;
use crate::embed::{Stream, count_progress, input_side, sketch_of};
use crate::failure::Failure;
use crate::own_schema::OwnSchema;
use crate::statements::Parameter;
use crate::types::Vector;

/// What is read of a row: its image, what stands for it in warnings, and what it lacks.
struct Lacking {
    image: Vec<u8>,
    key: Option<String>,
    descriptor: bool,
    sketch: bool,
}

/// What was made for a row.
pub struct Described {
    /// Its ctid.
    pub row: String,
    pub descriptor: Option<Vec<f32>>,
    pub sketch: Option<Vec<u8>>,
}

/// Rows of a batch, whose descriptors are still to come.
pub struct Describing<'a> {
    model: &'a Model,
    side: u32,
    stream: Stream<'a>,
    rows: Vec<(Described, bool)>,
    total: i64,
    /// Images of which nothing can be made; the warnings name them.
    pub refused: i64,
}

impl<'a> Describing<'a> {
    /// `total` images are to be described in all; progress is told of them.
    pub fn new(model: &'a Model, total: i64) -> Result<Self, Failure> {
        Ok(Describing {
            model,
            side: input_side(model)?,
            stream: Stream::new(model)?,
            rows: Vec::new(),
            total,
            refused: 0,
        })
    }

    /// Reads the row at `ctid`, if it still lacks something: `query` gives image, key, whether a descriptor is wanted,
    /// whether a sketch is, of the row at $1. It runs as the owner of the set's relation.
    pub fn add(&mut self, set: &OwnedSet, query: &str, ctid: &str) -> Result<(), Failure> {
        let found = by_owner(set.owner, query, &[Parameter::of(ctid)], |row| {
            Ok(Lacking {
                // Copied: the row's memory is SPI's.
                image: row.required(1)?,
                key: row.get(2)?,
                descriptor: row.required(3)?,
                sketch: row.required(4)?,
            })
        })?;
        let Some(lacking) = found.into_iter().next() else {
            return Ok(());
        };
        let made = read_matchable(&lacking.image, self.side).and_then(|image| {
            let sketch = lacking.sketch.then(|| sketch_of(&image)).transpose()?;
            Ok((image, sketch))
        });
        match made {
            Ok((image, sketch)) => {
                if lacking.descriptor {
                    self.stream.add(image)?;
                }
                let described = Described {
                    row: ctid.to_owned(),
                    descriptor: None,
                    sketch,
                };
                self.rows.push((described, lacking.descriptor));
            }
            Err(failure) if failure.is_about_the_image() => {
                self.refused += 1;
                let key = lacking.key.as_deref().unwrap_or("NULL");
                failure.at(format_args!("reference {key} has no descriptor")).warn();
            }
            Err(failure) => return Err(failure),
        }
        count_progress(self.total, "images embedded");
        Ok(())
    }

    /// What was made of the rows, in their order.
    pub fn finish(self) -> Result<Vec<Described>, Failure> {
        let mut descriptors = self.stream.finish()?.into_iter();
        let none = || {
            Failure::new(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("model \"{}\" returned no descriptor", self.model.name),
            )
        };
        self.rows
            .into_iter()
            .map(|(mut described, wanted)| {
                if wanted {
                    described.descriptor = Some(descriptors.next().ok_or_else(none)?);
                }
                Ok(described)
            })
            .collect()
    }
}

impl Described {
    /// Runs `statement`, an UPDATE of the row at $1 that takes the descriptor as $2 and the sketch as $3, as the owner
    /// of the set's relation: how many rows it wrote. None where somebody was quicker: the row is another version then,
    /// in another place, and no place that the calling statement's snapshot still sees is given away meanwhile.
    pub fn write(self, set: &OwnedSet, statement: &str) -> Result<i64, Failure> {
        let descriptor = self.descriptor.map(|elements| Vector::from_elements(&elements));
        let parameters = [
            Parameter::of(self.row),
            Parameter::typed(descriptor, OwnSchema::of_type()?.vector),
            Parameter::of(self.sketch),
        ];
        Ok(by_owner(set.owner, statement, &parameters, |_| Ok(()))?.len() as i64)
    }
}
