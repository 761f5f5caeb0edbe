//! A PostgreSQL backend must not start threads. Alone in its file: other tests would start some.

mod pictures;

#[test]
fn no_function_starts_a_thread() {
    // A test harness runs this in a thread of its own, and keeps one; what counts is that there are never more.
    let threads = || {
        std::fs::read_dir("/proc/self/task")
            .map(|tasks| tasks.count())
            .unwrap_or(0)
    };
    let before = threads();
    let most = std::cell::Cell::new(before);
    let should_stop = || {
        most.set(most.get().max(threads()));
        false
    };
    let image = pictures::scene(1200, 900, 1);
    let jpeg = imaging::encode_jpeg(&image, 90).unwrap();
    for min_side in [None, Some(200)] {
        let options = imaging::DecodeOptions {
            min_side,
            should_stop: &should_stop,
            ..Default::default()
        };
        let decoded = imaging::decode(&jpeg, &options).unwrap();
        imaging::resize(&decoded, 288, 288, imaging::Filter::Lanczos).unwrap();
        most.set(most.get().max(threads()));
    }
    for (_, bytes) in pictures::one_of_each() {
        imaging::decode(
            &bytes,
            &imaging::DecodeOptions {
                should_stop: &should_stop,
                ..Default::default()
            },
        )
        .unwrap();
    }
    assert_eq!(most.get(), before);
}
