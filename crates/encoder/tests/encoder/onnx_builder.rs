//! Writes ONNX models byte by byte: just enough of the protocol buffer for small networks, and for broken ones.
//! Field numbers are those of onnx.proto3.

/// A protocol buffer message under construction.
#[derive(Clone, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn varint(mut self, field: u64, value: u64) -> Self {
        self.raw_varint(field << 3);
        self.raw_varint(value);
        self
    }

    pub fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(value.as_ref().len() as u64);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    pub fn message(self, field: u64, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }
}

pub const FLOAT: u64 = 1;
pub const UINT8: u64 = 2;
pub const DOUBLE: u64 = 11;

/// A dimension of an input or output.
#[derive(Clone, Copy)]
pub enum Dim {
    Fixed(u64),
    Dynamic(&'static str),
}

pub fn tensor(name: &str, dims: &[u64], values: &[f32]) -> Message {
    assert_eq!(dims.iter().product::<u64>(), values.len() as u64);
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shaped = dims.iter().fold(Message::new(), |tensor, &dim| tensor.varint(1, dim));
    shaped.varint(2, FLOAT).bytes(8, name).bytes(9, data)
}

/// The same tensor, but kept in a file beside the model.
pub fn external_tensor(name: &str, dims: &[u64], location: &str) -> Message {
    let entry = Message::new().bytes(1, "location").bytes(2, location);
    let shaped = dims.iter().fold(Message::new(), |tensor, &dim| tensor.varint(1, dim));
    shaped.varint(2, FLOAT).bytes(8, name).message(13, &entry).varint(14, 1)
}

pub fn value_info(name: &str, element: u64, dims: &[Dim]) -> Message {
    let shape = dims.iter().fold(Message::new(), |shape, dim| {
        let dim = match dim {
            Dim::Fixed(size) => Message::new().varint(1, *size),
            Dim::Dynamic(symbol) => Message::new().bytes(2, symbol),
        };
        shape.message(1, &dim)
    });
    let tensor_type = Message::new().varint(1, element).message(2, &shape);
    Message::new()
        .bytes(1, name)
        .message(2, &Message::new().message(1, &tensor_type))
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Message]) -> Message {
    let with_inputs = inputs.iter().fold(Message::new(), |node, input| node.bytes(1, input));
    let with_outputs = outputs
        .iter()
        .fold(with_inputs, |node, output| node.bytes(2, output))
        .bytes(4, op);
    attributes
        .iter()
        .fold(with_outputs, |node, attribute| node.message(5, attribute))
}

pub fn ints(name: &str, values: &[u64]) -> Message {
    values
        .iter()
        .fold(Message::new().bytes(1, name).varint(20, 7), |attribute, &value| {
            attribute.varint(8, value)
        })
}

pub fn int(name: &str, value: u64) -> Message {
    Message::new().bytes(1, name).varint(20, 2).varint(3, value)
}

/// A graph with its pieces in the open, so that a test can spoil one of them.
#[derive(Clone)]
pub struct Graph {
    pub nodes: Vec<Message>,
    pub initializers: Vec<Message>,
    pub inputs: Vec<Message>,
    pub outputs: Vec<Message>,
}

impl Graph {
    pub fn message(&self) -> Message {
        let mut graph = self
            .nodes
            .iter()
            .fold(Message::new(), |graph, node| graph.message(1, node))
            .bytes(2, "test");
        graph = self
            .initializers
            .iter()
            .fold(graph, |graph, tensor| graph.message(5, tensor));
        graph = self.inputs.iter().fold(graph, |graph, input| graph.message(11, input));
        self.outputs
            .iter()
            .fold(graph, |graph, output| graph.message(12, output))
    }

    pub fn model(&self) -> Vec<u8> {
        let opset = Message::new().bytes(1, "").varint(2, 13);
        Message::new()
            .varint(1, 8)
            .message(8, &opset)
            .message(7, &self.message())
            .0
    }
}

const N: Dim = Dim::Dynamic("N");

pub fn image_input(name: &str) -> Message {
    value_info(name, FLOAT, &[N, Dim::Fixed(3), Dim::Dynamic("H"), Dim::Dynamic("W")])
}

pub fn descriptor_output(name: &str, dimensions: u64) -> Message {
    value_info(name, FLOAT, &[N, Dim::Fixed(dimensions)])
}

/// descriptor = (mean colour) x weights + bias, for any size. `weights` is 3 x dimensions, row by row.
pub fn mean_colour(weights: &[f32], bias: &[f32]) -> Graph {
    pooled("GlobalAveragePool", weights, bias)
}

/// descriptor = (sum of |colour| over all pixels) x weights + bias: unlike a mean it depends on the size.
pub fn colour_sum(weights: &[f32], bias: &[f32]) -> Graph {
    let mut graph = pooled("GlobalLpPool", weights, bias);
    graph.nodes[0] = node("GlobalLpPool", &["image"], &["pooled"], &[int("p", 1)]);
    graph
}

fn pooled(op: &str, weights: &[f32], bias: &[f32]) -> Graph {
    let dimensions = bias.len() as u64;
    Graph {
        nodes: vec![
            node(op, &["image"], &["pooled"], &[]),
            node("Flatten", &["pooled"], &["flat"], &[]),
            node("Gemm", &["flat", "weights", "bias"], &["descriptor"], &[]),
        ],
        initializers: vec![
            tensor("weights", &[3, dimensions], weights),
            tensor("bias", &[dimensions], bias),
        ],
        inputs: vec![image_input("image")],
        outputs: vec![descriptor_output("descriptor", dimensions)],
    }
}

/// descriptor = the input tensor itself, so that a test sees what the network sees. Only for squares of `side`.
pub fn identity(side: u64) -> Graph {
    Graph {
        nodes: vec![node("Flatten", &["image"], &["descriptor"], &[])],
        initializers: vec![],
        inputs: vec![value_info(
            "image",
            FLOAT,
            &[N, Dim::Fixed(3), Dim::Fixed(side), Dim::Fixed(side)],
        )],
        outputs: vec![descriptor_output("descriptor", 3 * side * side)],
    }
}

/// descriptor = every byte of the input tensor as a float, in the tensor's order, for one size of
/// `dims` (without the batch).
pub fn bytes_identity(dims: [u64; 3]) -> Graph {
    let [a, b, c] = dims.map(Dim::Fixed);
    Graph {
        nodes: vec![
            node("Cast", &["image"], &["floats"], &[int("to", FLOAT)]),
            node("Flatten", &["floats"], &["descriptor"], &[]),
        ],
        initializers: vec![],
        inputs: vec![value_info("image", UINT8, &[N, a, b, c])],
        outputs: vec![descriptor_output("descriptor", dims.iter().product())],
    }
}

/// descriptor = (height, width, channels) of the input: what the network sees of an image's
/// shape. Bytes, channels last.
pub fn shape_of_bytes() -> Graph {
    Graph {
        nodes: vec![
            node("Cast", &["image"], &["floats"], &[int("to", FLOAT)]),
            node("Shape", &["image"], &["shape"], &[]),
            node("Cast", &["shape"], &["sizes"], &[int("to", FLOAT)]),
            node("Slice", &["sizes", "from", "to"], &["sides"], &[]),
            node(
                "ReduceMean",
                &["floats"],
                &["means"],
                &[ints("axes", &[1, 2, 3]), int("keepdims", 1)],
            ),
            node("Flatten", &["means"], &["mean"], &[]),
            node("Mul", &["mean", "zero"], &["nothing"], &[]),
            node("Add", &["nothing", "sides"], &["descriptor"], &[]),
        ],
        initializers: vec![
            integers("from", &[1]),
            integers("to", &[4]),
            tensor("zero", &[1], &[0.0]),
        ],
        inputs: vec![value_info(
            "image",
            UINT8,
            &[N, Dim::Dynamic("H"), Dim::Dynamic("W"), Dim::Fixed(3)],
        )],
        outputs: vec![descriptor_output("descriptor", 3)],
    }
}

fn integers(name: &str, values: &[i64]) -> Message {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Message::new()
        .varint(1, values.len() as u64)
        .varint(2, 7)
        .bytes(8, name)
        .bytes(9, data)
}

/// descriptor = log(mean colour): minus infinity for a black image when mean is 0.
pub fn log_of_mean_colour() -> Graph {
    Graph {
        nodes: vec![
            node("GlobalAveragePool", &["image"], &["pooled"], &[]),
            node("Flatten", &["pooled"], &["flat"], &[]),
            node("Log", &["flat"], &["descriptor"], &[]),
        ],
        initializers: vec![],
        inputs: vec![image_input("image")],
        outputs: vec![descriptor_output("descriptor", 3)],
    }
}

/// A plain convolutional network of the size of a small mobile one: 3 -> 32 -> 64 -> 128 -> 256 channels, each layer
/// of stride 2, then the mean over the image.
pub fn convolutional() -> Graph {
    let channels = [3_u64, 32, 64, 128, 256];
    let mut state = 1_u32;
    let mut random = |count: u64, scale: f32| -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next() * scale).collect()
    };
    let mut graph = Graph {
        nodes: vec![],
        initializers: vec![],
        inputs: vec![image_input("image")],
        outputs: vec![descriptor_output("descriptor", 256)],
    };
    let mut last = "image".to_owned();
    for (i, pair) in channels.windows(2).enumerate() {
        let weights = random(pair[1] * pair[0] * 9, (6.0 / (pair[0] as f32 * 9.0)).sqrt());
        let (name, conv, relu) = (format!("w{i}"), format!("c{i}"), format!("r{i}"));
        graph
            .initializers
            .push(tensor(&name, &[pair[1], pair[0], 3, 3], &weights));
        let attributes = [ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])];
        graph.nodes.push(node("Conv", &[&last, &name], &[&conv], &attributes));
        graph.nodes.push(node("Relu", &[&conv], &[&relu], &[]));
        last = relu;
    }
    graph.nodes.push(node("GlobalAveragePool", &[&last], &["pooled"], &[]));
    graph.nodes.push(node("Flatten", &["pooled"], &["descriptor"], &[]));
    graph
}
