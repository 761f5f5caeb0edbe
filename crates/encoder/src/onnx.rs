//! A model is bytes and nothing else.
//!
//! ONNX lets a tensor live outside the model, in a file named by the model ("external data"), and ONNX Runtime opens
//! such files relative to the working directory even when the model itself comes from memory. In a server that would
//! let whoever may add a model read the server's files, so the model is walked before the library sees it and refused
//! when any tensor, in any graph or function however deep, lives elsewhere. The walk knows only the structure of the
//! protocol buffer (onnx.proto3); what the network computes is the library's business.

/// Deeper nesting than any real model has; the protocol buffer library itself stops at 100.
const MAX_DEPTH: u32 = 64;

#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    Training,
    Function,
}

impl Message {
    /// The message that a length-delimited field holds, where the walk must go into it.
    fn child(self, field: u64) -> Option<Message> {
        match (self, field) {
            (Self::Model, 7) => Some(Self::Graph),
            (Self::Model, 20) => Some(Self::Training),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Training, 1 | 2) => Some(Self::Graph),
            (Self::Function, 7) => Some(Self::Node),
            (Self::Function, 11) => Some(Self::Attribute),
            (Self::Graph, 1) => Some(Self::Node),
            (Self::Graph, 5) => Some(Self::Tensor),
            (Self::Graph, 15) => Some(Self::SparseTensor),
            (Self::Node, 5) => Some(Self::Attribute),
            (Self::Attribute, 5 | 10) => Some(Self::Tensor),
            (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Attribute, 22 | 23) => Some(Self::SparseTensor),
            (Self::SparseTensor, 1 | 2) => Some(Self::Tensor),
            _ => None,
        }
    }
}

/// Checks that `model` is an ONNX protocol buffer whose tensors are all inside it.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with "the model".
pub fn check_self_contained(model: &[u8]) -> Result<(), String> {
    if model.is_empty() {
        return Err("is empty".to_owned());
    }
    if model.get(4..8) == Some(b"ORTM") {
        return Err("is in ONNX Runtime's own format; only ONNX is accepted".to_owned());
    }
    let mut graphs = 0;
    walk(model, Message::Model, 0, &mut graphs)?;
    if graphs == 0 {
        return Err("is not ONNX: it holds no graph".to_owned());
    }
    Ok(())
}

fn walk(bytes: &[u8], message: Message, depth: u32, graphs: &mut usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("nests more than {MAX_DEPTH} levels deep"));
    }
    let mut reader = Reader { bytes };
    while !reader.bytes.is_empty() {
        match reader.field()? {
            (field, Value::Bytes(value)) => {
                if matches!((message, field), (Message::Tensor, 13)) {
                    return Err(external());
                }
                if matches!((message, field), (Message::Node, 4)) && value == b"EPContext" {
                    return Err("has an EPContext node, which refers to compiled files outside the model".to_owned());
                }
                if let Some(child) = message.child(field) {
                    *graphs += usize::from(matches!(child, Message::Graph));
                    walk(value, child, depth + 1, graphs)?;
                }
            }
            // The enumeration is read as 32 bits, whatever the length of the varint.
            (14, Value::Varint(location)) if matches!(message, Message::Tensor) && location as u32 != 0 => {
                return Err(external());
            }
            _ => {}
        }
    }
    Ok(())
}

fn external() -> String {
    "keeps a tensor in a file outside itself (external data); save it as one self-contained file".to_owned()
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            kind => return Err(format!("is not ONNX: wire type {kind} does not occur in it")),
        };
        match key >> 3 {
            0 => Err("is not ONNX: a field has number 0".to_owned()),
            field => Ok((field, value)),
        }
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for (i, byte) in self.bytes.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.bytes = &self.bytes[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.bytes.len() < 10 {
            "is truncated"
        } else {
            "is not ONNX: a number is too long"
        }
        .to_owned())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        match usize::try_from(length)
            .ok()
            .and_then(|length| self.bytes.split_at_checked(length))
        {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => Err(format!(
                "is truncated: {length} bytes announced, {} left",
                self.bytes.len()
            )),
        }
    }
}
