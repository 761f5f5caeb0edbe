//! A model that does not fit its manifest, or is no model, is refused with the part that is wrong.

use encoder::{EncoderError, check_self_contained};
use serde_json::json;

use crate::onnx_builder::{
    DOUBLE, Dim, FLOAT, Graph, Message, bytes_identity, descriptor_output, external_tensor, image_input, mean_colour,
    node, value_info,
};
use crate::setup::{load, manifest, manifest_json, read, sha256};

fn good() -> Graph {
    mean_colour(&[1.0, 0.0, 0.0, 1.0, 0.5, 0.5], &[0.1, 0.2])
}

fn refusal(graph: &Graph, sizes: &[u32]) -> EncoderError {
    let weights = graph.model();
    load(&weights, manifest(&weights, 2, sizes)).expect_err("the model must be refused")
}

#[track_caller]
fn assert_mismatch(error: &EncoderError, words: &[&str]) {
    assert!(matches!(error, EncoderError::ModelMismatch { .. }), "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
    assert!(error.hint().contains("float32"));
}

#[test]
fn the_model_that_the_others_are_spoilt_from_loads() {
    let weights = good().model();
    let encoder = load(&weights, manifest(&weights, 2, &[32, 64])).expect("loads");
    assert_eq!(encoder.provider(), "cpu");
    assert_eq!(encoder.fallback(), None);
    assert_eq!(encoder.manifest().dimensions(), 2);
}

#[test]
fn a_layout_a_type_and_a_fit_that_are_not_the_networks_are_named() {
    let weights = bytes_identity([32, 32, 3]).model();
    let mut json = manifest_json(&weights, 3072, &[32]);
    json["input"]["layout"] = json!("NHWC");
    assert_mismatch(
        &load(&weights, read(&json)).expect_err("bytes, not floats"),
        &["type of input", "a float32 tensor"],
    );
    json["input"]["type"] = json!("uint8");
    for field in ["mean", "std"] {
        json["input"].as_object_mut().expect("an object").remove(field);
    }
    load(&weights, read(&json)).expect("fits");
    json["input"]["fit"] = json!("short");
    assert_mismatch(
        &load(&weights, read(&json)).expect_err("one size only"),
        &["dimension 1", "height", "input.fit"],
    );
    json["input"].as_object_mut().expect("an object").remove("fit");
    json["input"]["layout"] = json!("NCHW");
    assert_mismatch(
        &load(&weights, read(&json)).expect_err("channels are last"),
        &["dimension 1", "3 (channels)"],
    );
    let weights = good().model();
    let mut json = manifest_json(&weights, 2, &[32]);
    json["input"]["type"] = json!("uint8");
    for field in ["mean", "std"] {
        json["input"].as_object_mut().expect("an object").remove(field);
    }
    assert_mismatch(
        &load(&weights, read(&json)).expect_err("floats, not bytes"),
        &["type of input", "a uint8 tensor, as input.type says"],
    );
}

#[test]
fn an_input_of_another_name_is_named() {
    let weights = good().model();
    let mut json = manifest_json(&weights, 2, &[32]);
    json["input"]["name"] = json!("pixels");
    assert_mismatch(
        &load(&weights, read(&json)).expect_err("no such input"),
        &["pixels", "image", "inputs"],
    );
}

#[test]
fn an_output_of_another_name_is_named() {
    let weights = good().model();
    let mut json = manifest_json(&weights, 2, &[32]);
    json["output"]["name"] = json!("embedding");
    assert_mismatch(
        &load(&weights, read(&json)).expect_err("no such output"),
        &["embedding", "descriptor", "outputs"],
    );
}

#[test]
fn a_second_input_is_refused() {
    let mut graph = good();
    graph
        .inputs
        .push(value_info("other", FLOAT, &[Dim::Dynamic("N"), Dim::Fixed(2)]));
    graph.nodes.push(node("Add", &["descriptor", "other"], &["sum"], &[]));
    graph.outputs.push(descriptor_output("sum", 2));
    assert_mismatch(&refusal(&graph, &[32]), &["inputs", "other"]);
}

#[test]
fn an_input_of_another_rank_is_refused() {
    let mut graph = good();
    graph.nodes = vec![node("Gemm", &["image", "weights", "bias"], &["descriptor"], &[])];
    graph.inputs = vec![value_info("image", FLOAT, &[Dim::Dynamic("N"), Dim::Fixed(3)])];
    assert_mismatch(&refusal(&graph, &[32]), &["rank of input \"image\"", "2", "4"]);
}

#[test]
fn an_input_of_another_type_is_refused() {
    let mut graph = good();
    graph.nodes.insert(
        0,
        node("Cast", &["wide"], &["image"], &[crate::onnx_builder::int("to", FLOAT)]),
    );
    let dims = [Dim::Dynamic("N"), Dim::Fixed(3), Dim::Dynamic("H"), Dim::Dynamic("W")];
    graph.inputs = vec![value_info("wide", DOUBLE, &dims)];
    let weights = graph.model();
    let mut json = manifest_json(&weights, 2, &[32]);
    json["input"]["name"] = json!("wide");
    assert_mismatch(
        &load(&weights, read(&json)).expect_err("doubles"),
        &["type of input \"wide\"", "f64"],
    );
}

#[test]
fn a_batch_of_fixed_size_is_refused() {
    let mut graph = good();
    let dims = [Dim::Fixed(1), Dim::Fixed(3), Dim::Dynamic("H"), Dim::Dynamic("W")];
    graph.inputs = vec![value_info("image", FLOAT, &dims)];
    assert_mismatch(&refusal(&graph, &[32]), &["dimension 0 of input \"image\"", "dynamic"]);
}

#[test]
fn another_number_of_channels_is_refused() {
    let mut graph = good();
    let dims = [Dim::Dynamic("N"), Dim::Fixed(1), Dim::Dynamic("H"), Dim::Dynamic("W")];
    graph.inputs = vec![value_info("image", FLOAT, &dims)];
    graph.initializers[0] = crate::onnx_builder::tensor("weights", &[1, 2], &[1.0, 1.0]);
    assert_mismatch(&refusal(&graph, &[32]), &["dimension 1 of input \"image\"", "3"]);
}

#[test]
fn a_size_that_the_model_does_not_take_is_refused() {
    let mut graph = good();
    let dims = [Dim::Dynamic("N"), Dim::Fixed(3), Dim::Fixed(64), Dim::Fixed(64)];
    graph.inputs = vec![value_info("image", FLOAT, &dims)];
    assert_mismatch(
        &refusal(&graph, &[64, 96]),
        &["dimension 2 of input \"image\"", "64", "96"],
    );
}

#[test]
fn another_number_of_dimensions_is_refused() {
    let weights = good().model();
    let error = load(&weights, manifest(&weights, 3, &[32])).expect_err("two, not three");
    assert_mismatch(&error, &["dimension 1 of output \"descriptor\"", "2", "3"]);
}

#[test]
fn an_output_whose_width_shows_only_at_run_time_is_an_error_then() {
    let mut graph = good();
    graph.nodes = vec![node("Flatten", &["image"], &["descriptor"], &[])];
    graph.initializers.clear();
    graph.outputs = vec![value_info("descriptor", FLOAT, &[Dim::Dynamic("N"), Dim::Dynamic("D")])];
    let weights = graph.model();
    let mut encoder = load(&weights, manifest(&weights, 2, &[16])).expect("nothing to see yet");
    let error = encoder
        .embed(&[crate::setup::noise(16, 16, 1)], &|| false)
        .expect_err("768 wide");
    assert!(matches!(error, EncoderError::OutputShape { .. }), "{error}");
    assert!(
        error.to_string().contains("768") && error.to_string().contains("1 x 2"),
        "{error}"
    );
}

#[test]
fn weights_of_another_hash_are_refused_before_anything_reads_them() {
    let weights = good().model();
    let json = manifest_json(b"other weights", 2, &[32]);
    let error = load(&weights, read(&json)).expect_err("another hash");
    assert!(matches!(error, EncoderError::WeightsMismatch { .. }), "{error}");
    assert!(error.to_string().contains(&sha256(&weights)), "{error}");
}

#[test]
fn an_operator_that_the_runtime_does_not_know_is_refused_in_its_words() {
    let mut graph = good();
    graph.nodes[0] = node("NoSuchOperator", &["image"], &["pooled"], &[]);
    let error = refusal(&graph, &[32]);
    assert!(matches!(error, EncoderError::ModelRefused { .. }), "{error}");
    assert!(error.to_string().contains("NoSuchOperator"), "{error}");
}

#[test]
fn a_model_cut_anywhere_is_refused() {
    let whole = good().model();
    for cut in 0..whole.len() {
        let weights = &whole[..cut];
        let error = load(weights, manifest(weights, 2, &[32])).expect_err("cut");
        let known = matches!(
            error,
            EncoderError::InvalidModel { .. } | EncoderError::ModelRefused { .. }
        );
        assert!(known, "{cut} bytes: {error}");
    }
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    let mut random = Vec::new();
    let mut state = 1_u64;
    for _ in 0..4096 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random.push((state >> 56) as u8);
    }
    let pickle: &[u8] = b"\x80\x02}q\x00.";
    let ort_format: &[u8] = b"\x18\x00\x00\x00ORTM\x00\x00\x00\x00";
    let no_graph = Message::new().varint(1, 8).0;
    for weights in [
        &[][..],
        b"hello",
        &random,
        pickle,
        ort_format,
        &no_graph,
        b"PK\x03\x04zip",
    ] {
        let error = load(weights, manifest(weights, 2, &[32])).expect_err("no model");
        assert!(matches!(error, EncoderError::InvalidModel { .. }), "{error}");
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn a_tensor_in_another_file_is_refused_wherever_it_hides() {
    let external = external_tensor("weights", &[3, 2], "base/1/1259");
    let in_attribute = |field: u64, value: &Message| Message::new().bytes(1, "a").message(field, value);
    let with_node = |attribute: Message| {
        let mut graph = good();
        graph.nodes.push(node("Constant", &[], &["extra"], &[attribute]));
        graph.model()
    };
    let subgraph = {
        let mut graph = good();
        graph.initializers[0] = external.clone();
        graph.message()
    };
    let mut plain = good();
    plain.initializers[0] = external.clone();
    let sparse = Message::new().message(1, &external);
    let inner_node = Message::new().message(5, &in_attribute(5, &external));
    let append = |field: u64, message: &Message| {
        let mut model = good().model();
        model.extend_from_slice(&Message::new().message(field, message).0);
        model
    };
    let location_only = Message::new()
        .varint(1, 1)
        .varint(2, FLOAT)
        .bytes(8, "bias")
        .varint(14, 1 << 32 | 1);
    let mut disguised = good();
    disguised.initializers[1] = location_only;
    let cases = [
        ("an initializer", plain.model()),
        ("a location that only 32 bits show", disguised.model()),
        ("an attribute", with_node(in_attribute(5, &external))),
        ("a list of tensors", with_node(in_attribute(10, &external))),
        ("a subgraph", with_node(in_attribute(6, &subgraph))),
        ("a list of subgraphs", with_node(in_attribute(11, &subgraph))),
        ("a sparse attribute", with_node(in_attribute(22, &sparse))),
        ("a function", append(25, &Message::new().message(7, &inner_node))),
        ("the training graph", append(20, &Message::new().message(1, &subgraph))),
        ("a second graph that is merged", append(7, &subgraph)),
        ("a sparse initializer", append(7, &Message::new().message(15, &sparse))),
    ];
    for (place, model) in cases {
        let error = check_self_contained(&model).expect_err(place);
        assert!(error.contains("external data"), "{place}: {error}");
        let error = load(&model, manifest(&model, 2, &[32])).expect_err(place);
        assert!(matches!(error, EncoderError::InvalidModel { .. }), "{place}: {error}");
    }
    assert_eq!(check_self_contained(&good().model()), Ok(()));
}

#[test]
fn a_node_that_refers_to_compiled_files_is_refused() {
    let mut graph = good();
    graph.nodes.push(node("EPContext", &["image"], &["extra"], &[]));
    let error = check_self_contained(&graph.model()).expect_err("files");
    assert!(error.contains("EPContext"), "{error}");
}

#[test]
fn graphs_nested_without_end_are_refused() {
    let mut graph = good().message();
    for _ in 0..40 {
        let attribute = Message::new().bytes(1, "body").message(6, &graph);
        graph = Message::new().message(1, &node("Loop", &[], &[], &[attribute]));
    }
    let model = Message::new().varint(1, 8).message(7, &graph).0;
    assert!(check_self_contained(&model).expect_err("deep").contains("deep"));
}

#[test]
fn an_image_input_that_is_only_an_intermediate_value_is_no_input() {
    let mut graph = good();
    graph.inputs = vec![image_input("raw")];
    graph.nodes.insert(0, node("Identity", &["raw"], &["image"], &[]));
    assert_mismatch(&refusal(&graph, &[32]), &["inputs", "raw", "image"]);
}
