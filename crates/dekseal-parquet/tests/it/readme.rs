//! The README.

/// `check --datafusion` runs the example.
#[test]
fn the_readme_shows_the_example_of_datafusion() {
    let (readme, example) = (
        include_str!("../../README.md"),
        include_str!("../../datafusion/examples/orders.rs"),
    );
    let (_, example) = example.split_once("\n\n").unwrap();
    assert!(
        readme.contains(&format!("```rust,ignore\n{example}```")),
        "README.md does not show datafusion/examples/orders.rs"
    );
}
