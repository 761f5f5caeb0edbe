//! The question.

use serde::{Deserialize, Serialize};

/// What is asked of a shard. Its payload is apart from it: the text of the statement stays the same from search to
/// search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Which of the set's partitions this is about; comes back with the answer.
    pub part: u32,
    /// The server's name on the coordinator.
    pub server: String,
    /// The set's name on the coordinator.
    pub set: String,
    /// The session that asks. PostgreSQL may compute there what was meant for the shard.
    pub from: String,
    /// The coordinator's version of copymatch; an older shard is refused.
    pub version: String,
    /// The relation on the shard, with its schema, quoted.
    pub relation: String,
    /// The descriptor column on the shard.
    pub descriptor: String,
    /// Name of the set's model on the coordinator.
    pub model: String,
    /// SHA-256 of that model's weights, in hexadecimal digits.
    pub sha256: String,
    /// What is wanted.
    pub wanted: Wanted,
}

/// What is wanted of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// What it is, in JSON; nothing is refused.
    Report,
    /// Nothing, but an error where its descriptors are not those of the set's model or its version is older.
    Agreement,
    /// The nearest references of the descriptor in the payload.
    Nearest {
        /// The key's columns.
        key: Vec<String>,
        /// Which rows are references: a filter over the alias `r`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<String>,
        /// How many.
        limit: usize,
        /// The part of the set's nearest that is to be found, where the coordinator's session says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recall: Option<f32>,
    },
    /// Descriptors and sketches of the rows in the payload.
    Pictured {
        /// The column with the sketches.
        sketch: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recall_stands_in_the_question_where_the_coordinator_says_so() {
        let nearest = |recall| Wanted::Nearest {
            key: vec!["id".into()],
            filter: None,
            limit: 10,
            recall,
        };
        for (wanted, text) in [
            (nearest(None), r#"{"nearest":{"key":["id"],"limit":10}}"#),
            (
                nearest(Some(0.9)),
                r#"{"nearest":{"key":["id"],"limit":10,"recall":0.9}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&wanted).unwrap(), text);
            assert_eq!(serde_json::from_str::<Wanted>(text).unwrap(), wanted);
        }
    }
}
