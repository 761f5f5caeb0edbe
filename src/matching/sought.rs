//! What a search looks for: a picture, its descriptors, or both. Each thing is computed when the first set asks for it.

use imaging::Image;
use keypoints::Query;
use pgrx::prelude::*;

use super::views::Views;
use crate::embed::catalogue::Model;
use crate::embed::decoded;
use crate::failure::Failure;
use crate::interrupts::should_stop;

/// A search's query.
#[derive(Default)]
pub struct Sought<'a> {
    picture: Option<&'a [u8]>,
    views: Views,
    /// Whether shards that do not answer may be left out, with a WARNING.
    pub partial: bool,
    /// A descriptor that was there already, and the models whose sets it can be compared with.
    given: Option<(&'a [f32], Vec<String>)>,
    /// The picture as the model of this name takes it.
    decoded: Option<(String, Image)>,
    features: Option<Query>,
    /// Keys of references that are searched as if they were not there.
    without: Vec<String>,
    /// The background of the descriptor that was given, with the neighbours of which it is the mean, where it was
    /// computed already.
    background: Option<(usize, f64)>,
    /// Descriptors by model, one for each view.
    embedded: Vec<(String, Vec<Vec<f32>>)>,
}

impl<'a> Sought<'a> {
    /// A picture, in these views.
    pub fn picture(bytes: &'a [u8], views: Views) -> Self {
        Sought {
            picture: Some(bytes),
            views,
            ..Sought::default()
        }
    }

    /// A descriptor, for sets of these models; `picture`: what it was made from, where that is there to be compared.
    pub fn descriptor(elements: &'a [f32], models: Vec<String>, picture: Option<&'a [u8]>) -> Self {
        Sought {
            picture,
            given: Some((elements, models)),
            ..Sought::default()
        }
    }

    /// Searches as if the references of these keys were not there.
    pub fn without(mut self, keys: Vec<String>) -> Self {
        self.without = keys;
        self
    }

    /// With the descriptor's background, the mean similarity to this number of neighbours, which is known.
    pub fn with_background(mut self, background: Option<(usize, f64)>) -> Self {
        self.background = background;
        self
    }

    /// The background of the descriptor that was given, by a model's background descriptors, where it is known.
    pub fn background(&self, model: &Model, neighbours: usize) -> Option<f64> {
        let (_, models) = self.given.as_ref()?;
        let (known, background) = self.background?;
        // All of them share the background: a descriptor is of one model.
        (known == neighbours && models.first() == Some(&model.name)).then_some(background)
    }

    /// Keys of references that are not to be found.
    pub fn left_out(&self) -> &[String] {
        &self.without
    }

    /// Whether there is a picture to compare.
    pub fn has_picture(&self) -> bool {
        self.picture.is_some()
    }

    /// The query's descriptors under a model, one for each view; None where it has none that could be compared.
    pub fn descriptors(&mut self, model: &Model) -> Result<Option<Vec<Vec<f32>>>, Failure> {
        if let Some((elements, models)) = &self.given {
            // A negative set of another model cannot be asked: its descriptors are not this one's kind.
            if !models.contains(&model.name) {
                return Ok(None);
            }
            return Ok(Some(vec![unit(elements, model)?]));
        }
        if let Some((_, views)) = self.embedded.iter().find(|(name, _)| *name == model.name) {
            return Ok(Some(views.clone()));
        }
        let views = self.views;
        let Some(image) = self.image(model)? else {
            return Ok(None);
        };
        let descriptors = views.embed(image, model)?;
        self.embedded.push((model.name.clone(), descriptors.clone()));
        Ok(Some(descriptors))
    }

    /// The picture's local features, for a comparison with sketches.
    pub fn features(&mut self, model: &Model) -> Result<Option<&Query>, Failure> {
        if self.features.is_none() {
            // As it was decoded for the descriptor, where that is there.
            let features = match &self.decoded {
                Some((_, image)) => Query::of(image, &should_stop)?,
                None => match self.image(model)? {
                    Some(image) => Query::of(image, &should_stop)?,
                    None => return Ok(None),
                },
            };
            self.features = Some(features);
        }
        Ok(self.features.as_ref())
    }

    fn image(&mut self, model: &Model) -> Result<Option<&Image>, Failure> {
        let Some(bytes) = self.picture else { return Ok(None) };
        if self.decoded.as_ref().is_none_or(|(name, _)| *name != model.name) {
            self.decoded = Some((model.name.clone(), decoded(bytes, model)?));
        }
        Ok(self.decoded.as_ref().map(|(_, image)| image))
    }
}

/// The descriptor scaled to unit length, after a check that it can be one of this model's.
pub(super) fn unit(elements: &[f32], model: &Model) -> Result<Vec<f32>, Failure> {
    if elements.len() != model.dimensions {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
            format!("expected {} dimensions, not {}", model.dimensions, elements.len()),
        )
        .hint(format!(
            "Descriptors of model \"{}\" have {} dimensions.",
            model.name, model.dimensions
        )));
    }
    let norm = elements
        .iter()
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum::<f64>()
        .sqrt();
    if norm == 0.0 {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
            "the zero vector is no descriptor: it has no direction to compare",
        ));
    }
    Ok(elements.iter().map(|x| (f64::from(*x) / norm) as f32).collect())
}
