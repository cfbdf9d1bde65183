//! The documentation is complete and its code runs: errors, guides, links, examples.

use std::{collections::BTreeSet, fs, path::Path};

use crate::imports::sources;
#[cfg(all(feature = "api", feature = "file-keyring"))]
use crate::support::this_test;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The paths of the Markdown files in a directory of the repository.
fn markdown(directory: &str) -> Vec<String> {
    let mut paths: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md"))
        .map(|name| {
            if directory == "." {
                name
            } else {
                format!("{directory}/{name}")
            }
        })
        .collect();
    paths.sort();
    paths
}

/// The names of the variants of an enum in src/error/kind.rs.
fn variants(name: &str) -> BTreeSet<String> {
    let source = read("src/error/kind.rs");
    let (_, body) = source.split_once(&format!("pub enum {name} {{\n")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    body.lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.split([',', '(']).next().unwrap().to_owned())
        .collect()
}

/// The first column of the first table in docs/errors.md after a text.
fn rows(after: &str) -> Vec<String> {
    let text = read("docs/errors.md");
    let (_, text) = text
        .split_once(after)
        .unwrap_or_else(|| panic!("docs/errors.md lacks {after:?}"));
    text.lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.split('`').nth(1).unwrap().to_owned())
        .collect()
}

#[test]
fn each_error_has_a_row_that_says_what_to_do() {
    for (name, after, least) in [
        ("ErrorKind", "## Kinds", 29),
        ("FileFault", "holds a `FileFault`", 10),
        ("StoreFault", "holds a `StoreFault`", 10),
        ("ContextRule", "holds a `ContextRule`", 3),
        ("BlobRule", "holds a `BlobRule`", 4),
        ("PayloadRule", "holds a `PayloadRule`", 4),
        ("RandomnessFault", "holds a `RandomnessFault`", 2),
    ] {
        let (variants, rows) = (variants(name), rows(after));
        assert!(variants.len() >= least, "the search is broken: {variants:?}");
        assert_eq!(
            rows.len(),
            variants.len(),
            "docs/errors.md, {name}: a row occurs twice or is missing"
        );
        assert_eq!(
            rows.into_iter().collect::<BTreeSet<_>>(),
            variants,
            "docs/errors.md, {name}"
        );
    }
}

fn guides() -> Vec<String> {
    let guides = markdown("docs/guide");
    assert!(guides.len() >= 5, "the search is broken: {guides:?}");
    guides
}

/// The lines between the markers of a region, without markers and common indentation.
fn region(path: &str, name: &str) -> String {
    let text = read(path);
    let mut lines = text
        .lines()
        .skip_while(|line| line.trim() != format!("// ANCHOR: {name}"))
        .skip(1);
    let body: Vec<_> = lines
        .by_ref()
        .take_while(|line| line.trim() != format!("// ANCHOR_END: {name}"))
        .filter(|line| !line.trim_start().starts_with("// ANCHOR"))
        .collect();
    assert!(!body.is_empty(), "{path} has no region {name}");
    let indentation = body
        .iter()
        .filter(|line| !line.is_empty())
        .map(|line| line.len() - line.trim_start().len())
        .min()
        .unwrap();
    body.iter()
        .map(|line| format!("{}\n", line.get(indentation..).unwrap_or("")))
        .collect()
}

/// A guide names the region that it shows in a comment: `<!-- tests/it/guide/rotation.rs: sweep -->`, then the code
/// block.
#[test]
fn each_guide_shows_code_that_runs() {
    let mut shown = BTreeSet::new();
    for guide in guides() {
        let text = read(&guide);
        let mut lines = text.lines();
        let mut before = "";
        while let Some(line) = lines.next() {
            if let Some(language) = line.strip_prefix("```") {
                let block: String = lines
                    .by_ref()
                    .take_while(|line| *line != "```")
                    .map(|line| format!("{line}\n"))
                    .collect();
                assert!(
                    !language.is_empty(),
                    "{guide}: a code block without a language:\n{block}"
                );
                if language.starts_with("rust") {
                    assert_eq!(language, "rust", "{guide}");
                    let (path, name) = before
                        .strip_prefix("<!-- ")
                        .and_then(|comment| comment.strip_suffix(" -->")?.split_once(": "))
                        .unwrap_or_else(|| panic!("{guide}: no comment names the source of this code:\n{block}"));
                    assert_eq!(block, region(path, name), "{guide} differs from {path}: {name}");
                    shown.insert((path.to_owned(), name.to_owned()));
                }
            }
            before = line;
        }
    }
    // No region is left over.
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/guide")).unwrap() {
        let path = format!("tests/it/guide/{}", entry.unwrap().file_name().to_str().unwrap());
        for line in read(&path).lines() {
            if let Some(name) = line.trim().strip_prefix("// ANCHOR: ") {
                let region = (path.clone(), name.to_owned());
                assert!(shown.contains(&region), "no guide shows {region:?}");
            }
        }
    }
}

/// `[name]: target`
fn definition(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('[')?.split_once("]: ")
}

/// Guides are read on GitHub and on docs.rs. A link to another page is written `[text][name]`; the file ends with a
/// definition that GitHub follows, and src/guide.rs has one that rustdoc follows.
#[test]
fn links_of_guides_work_on_github_and_on_docs_rs() {
    let for_rustdoc = read("src/guide.rs");
    let pages = guides()
        .into_iter()
        .chain(["docs/errors.md".into(), "docs/glossary.md".into()]);
    for page in pages {
        let text = read(&page);
        let defined: BTreeSet<_> = text.lines().filter_map(definition).map(|(name, _)| name).collect();
        for name in &defined {
            assert!(
                for_rustdoc.contains(&format!("/// [{name}]: ")),
                "{page}: [{name}] is not in src/guide.rs"
            );
        }
        let mut code = false;
        for line in text.lines() {
            code ^= line.starts_with("```");
            if code {
                continue;
            }
            assert!(
                !line.contains("[`"),
                "{page}: only rustdoc knows the target of this link: {line}"
            );
            for (_, target) in line.match_indices("](").map(|(at, _)| line.split_at(at + 2)) {
                assert!(
                    target.starts_with("http"),
                    "{page}: write [text][name] and a definition: {line}"
                );
            }
            for (_, name) in line.match_indices("][").map(|(at, _)| line.split_at(at + 2)) {
                let name = name.split(']').next().unwrap();
                assert!(defined.contains(name), "{page}: [{name}] has no definition");
            }
        }
    }
}

#[test]
fn each_link_leads_to_a_file() {
    let mut seen = 0;
    for directory in [".", "docs", "docs/guide", "tests/vectors"] {
        for page in markdown(directory) {
            let text = read(&page);
            let inline = text
                .match_indices("](")
                .map(|(at, _)| text[at + 2..].split(')').next().unwrap());
            for target in inline.chain(text.lines().filter_map(definition).map(|(_, target)| target)) {
                let target = target.split('#').next().unwrap();
                if !target.contains("://") && !target.contains("::") && target.contains('.') {
                    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory).join(target);
                    assert!(path.exists(), "{page}: {target} does not exist");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} links found: the search is broken");
}

/// The example lines of a source file, and its public items: for each its name, whether it is a function, and whether
/// its own documentation has an example.
fn examples_and_items(text: &str) -> (Vec<&str>, Vec<(&str, bool, bool)>) {
    let (mut examples, mut items) = (Vec::new(), Vec::new());
    let (mut open, mut runs, mut own) = (false, false, false);
    for line in text.lines().map(str::trim_start) {
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        if line.contains("doc = \"```\"") || doc.is_some_and(|doc| doc.trim_start().starts_with("```")) {
            open = !open;
            // A `compile_fail` example shows what is impossible.
            runs = open && !line.contains("compile_fail");
            own |= runs;
        } else if let Some(doc) = doc {
            if runs {
                examples.push(doc);
            }
        } else if !line.starts_with("#[") && !line.starts_with("#!") {
            let words: Vec<_> = line
                .split([' ', '(', '<', ';', ':'])
                .filter(|word| *word != "const")
                .collect();
            if let ["pub", kind @ ("fn" | "struct" | "enum" | "trait"), name, ..] = words.as_slice() {
                items.push((*name, *kind == "fn", own));
            }
            own = false;
        }
    }
    (examples, items)
}

#[test]
fn each_public_type_has_an_example_and_each_public_function_is_in_one() {
    let mut seen = 0;
    for (path, text) in sources() {
        let (examples, items) = examples_and_items(&text);
        let examples = examples.join("\n");
        for (name, is_function, own) in items {
            // A function `x_with_rng` does what `x` does, so the example of `x` suffices.
            let beside = name.strip_suffix("_with_rng").unwrap_or(name);
            let called = is_function
                && examples
                    .match_indices(&format!("{beside}("))
                    .any(|(at, _)| !examples[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
            assert!(own || called, "{}: {name} has no example", path.display());
            seen += 1;
        }
    }
    assert!(seen > 140, "only {seen} items found: the search is broken");
}

/// The paths of the text files of the repository. The packaged crate has some of them.
fn text_files() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut directories, mut files) = (vec![root.to_owned()], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let script = path.parent().unwrap().ends_with("scripts") || path.ends_with(".ci/run");
            let text = [".rs", ".md", ".toml", ".py", ".supp"]
                .iter()
                .any(|end| name.ends_with(end));
            if path.is_dir() {
                // Build output, `.git`, and the findings of fuzzers.
                if !["target", ".git", "corpus", "artifacts", ".venv", "node_modules"].contains(&name) {
                    directories.push(path);
                }
            } else if text || script {
                files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files
}

#[test]
fn lines_end_at_120_columns() {
    let mut long = Vec::new();
    for path in text_files() {
        let markdown = path.ends_with(".md");
        let mut output = false;
        for (number, line) in read(&path).lines().enumerate() {
            if let Some(language) = line.strip_prefix("```") {
                output = !output && ["text", "console"].contains(&language);
            }
            // The rows of tables and the names of mutants cannot be broken. The output of programs is quoted as it is.
            let of_markdown = output || ["|", "    ", "- `src/"].iter().any(|start| line.starts_with(start));
            let of_rustdoc = ["//! |", "/// |"]
                .iter()
                .any(|start| line.trim_start().starts_with(start));
            let exempt = (markdown && of_markdown) || of_rustdoc;
            if line.chars().count() > 120 && !exempt {
                long.push(format!("{path}:{}", number + 1));
            }
        }
    }
    assert!(long.is_empty(), "longer than 120 columns: {long:#?}");
}

/// Each test that a document names, in backticks and with its module, as `cargo test` names it without `it::`.
#[cfg(all(feature = "api", feature = "file-keyring"))]
fn named_tests(text: &str) -> BTreeSet<&str> {
    let is_path = |span: &&str| {
        let mut segments = span.split("::");
        span.contains("::")
            && !span.starts_with("str::")
            && segments.all(|segment| {
                segment.starts_with(|c: char| c.is_ascii_lowercase())
                    && segment
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            })
    };
    text.split('`').skip(1).step_by(2).filter(is_path).collect()
}

#[cfg(all(feature = "api", feature = "file-keyring"))]
#[test]
fn each_test_that_a_document_names_exists() {
    let list = this_test().args(["--list", "--format=terse"]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let tests: Vec<_> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    assert!(tests.len() > 200, "only {} tests: the search is broken", tests.len());
    // The tests of the library's own modules are in another binary.
    let own = |name: &str| {
        let (module, test) = name.split_once("::tests::")?;
        let source = fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{}/tests.rs", module.replace("::", "/"))),
        );
        source.ok()?.contains(&format!("fn {test}(")).then_some(())
    };
    let (mut seen, mut unknown) = (0, Vec::new());
    for document in ["SECURITY.md", "docs/ASSURANCE.md", "docs/SECURITY-ARGUMENT.md"] {
        let text = read(document);
        for name in named_tests(&text) {
            // Without the feature these tests are not compiled.
            if name.starts_with("store_") && cfg!(not(feature = "store-keyring")) {
                continue;
            }
            let here = tests.iter().any(|test| {
                let rest = test.strip_prefix(name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            });
            if !here && own(name).is_none() {
                unknown.push(format!("{document}: {name}"));
            }
            seen += 1;
        }
    }
    assert!(unknown.is_empty(), "these are no tests: {unknown:#?}");
    assert!(seen > 40, "only {seen} tests are named: the search is broken");
}

/// The comments of a source text: each run of comment lines, joined, without the lines of examples.
fn comments(text: &str) -> Vec<String> {
    let (mut comments, mut fenced) = (vec![String::new()], false);
    for line in text.lines().map(str::trim_start) {
        let comment = ["///", "//!", "//"].iter().find_map(|start| line.strip_prefix(start));
        match comment {
            Some(comment) if comment.trim_start().starts_with("```") => fenced = !fenced,
            Some(comment) if !fenced => {
                let last = comments.last_mut().unwrap();
                last.push(' ');
                last.push_str(comment.trim());
            }
            Some(_) => {}
            // An attribute opens the examples that some features leave out.
            None if line.contains("doc = \"```") => fenced = true,
            None => comments.push(String::new()),
        }
    }
    comments
}

/// What a comment quotes of docs/FORMAT.md:
///
/// - a formula in backticks, `name = …`, in which bytes are joined or a primitive is called;
/// - what follows the name of a section and a colon, if bytes are joined in it;
/// - four words or more in quotation marks.
fn quotations(comment: &str) -> Vec<&str> {
    let formula = |text: &&str| text.contains('‖') || text.contains("HKDF-E") || text.contains("HMAC-SHA-256(");
    let named = |text: &&str| {
        let name = text.split(" = ").next().unwrap();
        text.contains(" = ") && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let spans = comment.split('`').skip(1).step_by(2);
    let mut quotations: Vec<_> = spans.filter(formula).filter(named).collect();
    let section = comment.trim_start().split_once(": ").filter(|(section, _)| {
        section.len() == 2 && section.starts_with(['A', 'B', 'C']) && section.ends_with(|c: char| c.is_ascii_digit())
    });
    quotations.extend(section.map(|(_, text)| text).filter(|text| text.contains('‖')));
    // A comment that names an RFC quotes the RFC.
    if !comment.contains("RFC ") {
        let marked = comment.split('"').skip(1).step_by(2);
        quotations.extend(marked.filter(|text| text.split_whitespace().count() >= 4));
    }
    quotations
}

#[test]
fn quotations_of_the_format_are_verbatim() {
    let plain = |text: &str| {
        text.replace(['`', '*'], "")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let format = plain(&read("docs/FORMAT.md"));
    let (mut seen, mut changed) = (0, Vec::new());
    for (path, text) in sources() {
        for comment in comments(&text) {
            for quotation in quotations(&comment) {
                if !format.contains(&plain(quotation)) {
                    changed.push(format!("{}: {quotation}", path.display()));
                }
                seen += 1;
            }
        }
    }
    assert!(changed.is_empty(), "docs/FORMAT.md does not say this: {changed:#?}");
    assert!(seen >= 10, "only {seen} quotations found: the search is broken");
}

#[test]
fn the_search_finds_quotations_in_every_form() {
    let text = "/// `a = b ‖\n/// c` and `f(x = y)`, `HKDF-Expand(x = y)`.\n\
        fn f() {\n    // A3: x ‖ y\n    g();\n    // B1: no bytes\n}\n\
        // \"one two three\n// four\" and \"two words\"\nlet x;\n// RFC 1: \"one two three four\"\n\
        #[doc = \"```\"]\n/// // `d = e ‖ f`\n/// ```\n/// `g = h ‖ i`";
    let comments = comments(text);
    let found: Vec<_> = comments.iter().flat_map(|comment| quotations(comment)).collect();
    assert_eq!(found, ["a = b ‖ c", "x ‖ y", "one two three four", "g = h ‖ i"]);
}
