//! The processor, which every table names.

/// The name of the processor, and the names of its instructions that the primitives use.
pub(crate) fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let flags = field("flags").or_else(|| field("Features")).unwrap_or_default();
    let wanted = [
        "aes",
        "vaes",
        "pclmulqdq",
        "vpclmulqdq",
        "sha_ni",
        "avx2",
        "avx512f",
        "pmull",
        "sha2",
    ];
    let has: Vec<&str> = wanted
        .into_iter()
        .filter(|flag| flags.split(' ').any(|f| f == *flag))
        .collect();
    let name = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let family = field("cpu family").unwrap_or_default();
    let model = field("model\t").unwrap_or_default();
    format!("{name}, family {family}, model {model}: {}", has.join(" "))
}
