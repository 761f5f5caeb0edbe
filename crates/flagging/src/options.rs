//! The arguments of a flagging trigger, which are strings: image column, key columns, set, then `option=value`.

use thiserror::Error;

use crate::key::split_columns;

/// Most references that one upload is compared with.
const MOST_NEIGHBOURS: i32 = 1000;

/// When an upload is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Within the statement that writes it.
    Sync,
    /// Later, from the queue.
    Async,
}

/// What a match with verdict `copy` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCopy {
    /// It is recorded as a finding.
    Flag,
    /// The row is refused.
    Reject,
}

/// What happens to an upload whose image cannot be matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBadImage {
    /// The row is refused; in the queue it becomes a failed entry.
    Error,
    /// It passes with a WARNING.
    Skip,
}

/// What one trigger is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The bytea column.
    pub image: String,
    /// The key's columns, one at least.
    pub key: Vec<String>,
    /// The reference set.
    pub set: String,
    /// When an upload is matched.
    pub mode: Mode,
    /// What a copy does.
    pub on_copy: OnCopy,
    /// What an image that cannot be matched does.
    pub on_bad_image: OnBadImage,
    /// The column that says who uploaded.
    pub uploader: Option<String>,
    /// Whether matches with verdict `review` are flagged, not only those with verdict `copy`.
    pub review: bool,
    /// How many of the nearest references are looked at.
    pub k: i32,
    /// Whether a new finding sends a notification.
    pub notify: bool,
}

/// Arguments that say nothing sensible.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct OptionError {
    message: String,
    hint: String,
}

impl OptionError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        OptionError {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// What to write instead.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

const USAGE: &str = "EXECUTE FUNCTION copy_flag('image column', 'key column', 'reference set' [, 'option=value', …])";

impl Options {
    /// Reads a trigger's arguments.
    ///
    /// # Errors
    /// An unknown option, a value that the option does not take, an option given twice, or fewer than three arguments.
    pub fn parse(arguments: &[impl AsRef<str>]) -> Result<Options, OptionError> {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let [image, key, set, more @ ..] = arguments.as_slice() else {
            return Err(OptionError::new(
                format!("copy_flag has {} arguments, and needs three", arguments.len()),
                USAGE,
            ));
        };
        if image.is_empty() || set.is_empty() {
            return Err(OptionError::new("copy_flag has an empty argument", USAGE));
        }
        let key = split_columns(key).ok_or_else(|| {
            OptionError::new(
                format!("\"{key}\" is no list of key columns"),
                "One name, or several with commas between: 'tenant,number'. A name with a comma stands in double \
                 quotes.",
            )
        })?;
        let mut options = Options {
            image: (*image).to_owned(),
            key,
            set: (*set).to_owned(),
            mode: Mode::Sync,
            on_copy: OnCopy::Flag,
            on_bad_image: OnBadImage::Error,
            uploader: None,
            review: true,
            k: 10,
            notify: true,
        };
        let mut seen: Vec<&str> = Vec::new();
        for argument in more {
            let (name, value) = argument.split_once('=').ok_or_else(|| {
                OptionError::new(
                    format!("argument \"{argument}\" of copy_flag is no option"),
                    "Options are written 'name=value'; the first three arguments are image column, key column and set.",
                )
            })?;
            let (name, value) = (name.trim(), value.trim());
            if seen.contains(&name) {
                return Err(OptionError::new(
                    format!("option {name} of copy_flag is given twice"),
                    "Leave one.",
                ));
            }
            seen.push(name);
            options.set_option(name, value)?;
        }
        if options.mode == Mode::Async && options.on_copy == OnCopy::Reject {
            return Err(OptionError::new(
                "mode=async cannot refuse a row: it is matched after it was written",
                "Leave out mode=async, or on_copy=reject.",
            ));
        }
        Ok(options)
    }

    fn set_option(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
        match name {
            "mode" => self.mode = choose(name, value, &[("sync", Mode::Sync), ("async", Mode::Async)])?,
            "on_copy" => self.on_copy = choose(name, value, &[("flag", OnCopy::Flag), ("reject", OnCopy::Reject)])?,
            "on_bad_image" => {
                self.on_bad_image = choose(name, value, &[("error", OnBadImage::Error), ("skip", OnBadImage::Skip)])?;
            }
            "notify" => self.notify = choose(name, value, &[("on", true), ("off", false)])?,
            "verdict" => self.review = choose(name, value, &[("review", true), ("copy", false)])?,
            "uploader" if value.is_empty() => {
                return Err(OptionError::new(
                    "option uploader of copy_flag is empty",
                    "It names the column that says who uploaded: 'uploader=user_id'.",
                ));
            }
            "uploader" => self.uploader = Some(value.to_owned()),
            "k" => {
                self.k = value
                    .parse()
                    .ok()
                    .filter(|k| (1..=MOST_NEIGHBOURS).contains(k))
                    .ok_or_else(|| {
                        OptionError::new(
                            format!("option k of copy_flag is \"{value}\""),
                            format!("The number of references to look at, 1 to {MOST_NEIGHBOURS}."),
                        )
                    })?;
            }
            _ => {
                return Err(OptionError::new(
                    format!("copy_flag has no option \"{name}\""),
                    "There are mode, on_copy, on_bad_image, uploader, verdict, notify and k.",
                ));
            }
        }
        Ok(())
    }
}

fn choose<T: Copy>(name: &str, value: &str, choices: &[(&str, T)]) -> Result<T, OptionError> {
    choices
        .iter()
        .find(|(known, _)| *known == value)
        .map(|&(_, meaning)| meaning)
        .ok_or_else(|| {
            let known: Vec<&str> = choices.iter().map(|&(known, _)| known).collect();
            OptionError::new(
                format!("option {name} of copy_flag is \"{value}\""),
                format!("Choose {}.", known.join(" or ")),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[&str]) -> Result<Options, OptionError> {
        let mut arguments = vec!["image", "id", "licensed"];
        arguments.extend(more);
        Options::parse(&arguments)
    }

    #[test]
    fn three_arguments_are_enough() -> Result<(), OptionError> {
        let options = parse(&[])?;
        assert_eq!(options.key, ["id"]);
        assert_eq!(
            (
                options.mode,
                options.on_copy,
                options.on_bad_image,
                options.review,
                options.notify,
                options.k
            ),
            (Mode::Sync, OnCopy::Flag, OnBadImage::Error, true, true, 10)
        );
        Ok(())
    }

    #[test]
    fn every_option_is_read() -> Result<(), OptionError> {
        let options = parse(&[
            "mode=async",
            "on_bad_image=skip",
            "uploader=user_id",
            "verdict=copy",
            "notify=off",
            "k = 3",
        ])?;
        assert_eq!(
            (
                options.mode,
                options.on_bad_image,
                options.uploader.as_deref(),
                options.review,
                options.notify,
                options.k
            ),
            (Mode::Async, OnBadImage::Skip, Some("user_id"), false, false, 3)
        );
        assert_eq!(parse(&["on_copy=reject"])?.on_copy, OnCopy::Reject);
        Ok(())
    }

    #[test]
    fn wrong_arguments_are_named_with_a_hint() {
        for (wrong, part) in [
            (&["mode=later"][..], "\"later\""),
            (&["mod=async"], "\"mod\""),
            (&["async"], "no option"),
            (&["k=0"], "\"0\""),
            (&["k=many"], "\"many\""),
            (&["k=1", "k=2"], "twice"),
            (&["uploader="], "empty"),
            (&["mode=async", "on_copy=reject"], "cannot refuse"),
        ] {
            match parse(wrong) {
                Ok(options) => panic!("{wrong:?} gave {options:?}"),
                Err(error) => {
                    assert!(error.to_string().contains(part), "{wrong:?}: {error}");
                    assert!(!error.hint().is_empty());
                }
            }
        }
        assert!(Options::parse(&["image", "id"]).is_err());
        assert!(Options::parse(&["image", "a,,b", "licensed"]).is_err());
    }
}
