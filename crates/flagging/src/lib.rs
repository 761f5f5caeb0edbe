//! What a flagging trigger is told, how uploads are named, and the page that reports what was found.
//!
//! ```
//! use flagging::{Mode, Options, record_text};
//!
//! let options = Options::parse(&["image", "id", "licensed", "mode=async"])?;
//! assert_eq!((options.image.as_str(), options.set.as_str(), options.mode), ("image", "licensed", Mode::Async));
//! assert_eq!(record_text(&["1", "x y"]), r#"(1,"x y")"#);
//! # Ok::<(), flagging::OptionError>(())
//! ```

#![forbid(unsafe_code)]

mod key;
mod options;
mod page;

pub use key::{record_text, split_columns, split_record};
pub use options::{Mode, OnBadImage, OnCopy, OptionError, Options};
pub use page::{PageError, render};
