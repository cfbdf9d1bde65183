//! Sealing and opening allocate nothing, and the wire API allocates little for any request.

use allocation_counter::measure;
use dekseal::{EncryptionContext, Engine, SealedDek};

use crate::support::{Fixed, KEY_ID, cmk, dek, key_id, longest_context, one_key};

/// The number of allocations that `f` makes on this thread.
fn allocations<T>(f: impl FnOnce() -> T) -> u64 {
    measure(|| drop(f())).count_total
}

/// If a concurrent test has a subscriber, the feature `tracing` checks once for each thread whether it has one too.
/// This runs that check before anything is counted.
pub(crate) fn look_for_a_subscriber() {
    use tracing::subscriber::{NoSubscriber, with_default};
    with_default(NoSubscriber::default(), || ());
}

#[test]
fn the_count_counts() {
    assert_eq!(allocations(|| std::hint::black_box(vec![1])), 1);
}

#[test]
fn nothing_between_a_dek_and_its_blob_allocates() {
    look_for_a_subscriber();
    let (id, cmk, engine, dek) = (
        key_id(KEY_ID),
        cmk(KEY_ID, 0, &[7; 32]),
        Engine::new(one_key()),
        dek(&"5a".repeat(64)),
    );
    let random: Vec<u8> = (0..200 * 64_u32).map(|at| (at * at / 7) as u8).collect();
    // Each context with the heap allocations for its AAD: one above 980 bytes. A pair takes 6 bytes besides its text.
    let edge = "v".repeat(980 - 2 - 4 - 1);
    let long = "\u{1f511}".repeat(4000);
    let contexts = [
        (EncryptionContext::none(), 0),
        (EncryptionContext::from_pairs([("tenant", "42")]).unwrap(), 0),
        (EncryptionContext::from_pairs([("a", &edge)]).unwrap(), 0),
        (EncryptionContext::from_pairs([("ab", &edge)]).unwrap(), 1),
        (EncryptionContext::from_pairs([("a", &long), ("b", &long)]).unwrap(), 1),
    ];
    for (context, aad) in &contexts {
        let aad = *aad;
        let sealed = cmk.seal(context, &dek);
        let mut slots: Vec<_> = (0..100).map(|_| None).collect();
        // Work that a thread does only once is done before counting.
        let opened = engine.decrypt_dek(&id, context, &sealed).unwrap();
        assert!(opened == dek);

        assert_eq!(allocations(|| cmk.seal(context, &dek)), aad);
        assert_eq!(allocations(|| cmk.open(context, &sealed)), aad);
        assert_eq!(allocations(|| cmk.open(&EncryptionContext::none(), &sealed)), 0);
        assert_eq!(allocations(|| SealedDek::from_bytes(sealed.as_bytes())), 0);
        assert_eq!(
            allocations(|| engine.create_dek_with_rng(&id, context, &mut Fixed(&random))),
            aad
        );
        assert_eq!(
            allocations(|| engine.create_dek_without_plaintext_with_rng(&id, context, &mut Fixed(&random))),
            aad
        );
        assert_eq!(
            allocations(|| engine.create_deks_with_rng(&id, context, &mut slots, &mut Fixed(&random))),
            100 * aad
        );
        assert_eq!(allocations(|| engine.encrypt_dek(&id, context, &dek)), aad);
        assert_eq!(allocations(|| engine.decrypt_dek(&id, context, &sealed)), aad);
        assert_eq!(allocations(|| engine.decrypt_dek_under_any_key(context, &sealed)), aad);
        #[cfg(feature = "std")]
        assert_eq!(allocations(|| engine.create_dek(&id, context)), aad);
    }
}

/// A thread of 64 KiB has no room for the AAD of the longest context. Less than that is too little on processors for
/// which AES is bit-sliced.
#[test]
fn the_longest_context_takes_no_stack() {
    let context = longest_context();
    assert!(context.canonical().len() > 64 * 1024);
    let thread = std::thread::Builder::new().stack_size(64 * 1024);
    let sealed = thread.spawn(move || cmk(KEY_ID, 0, &[7; 32]).seal(&context, &dek(&"5a".repeat(64))));
    assert_eq!(sealed.unwrap().join().unwrap().key_version(), 0);
}

/// The given pairs, the sorted pairs, and the canonical form.
#[test]
fn a_context_allocates_three_times() {
    let pairs = [("tenant", "42"), ("purpose", "backup"), ("a", ""), ("b", "c")];
    assert_eq!(allocations(|| EncryptionContext::from_pairs(pairs)), 3);
    assert_eq!(allocations(EncryptionContext::none), 0);
}

#[cfg(feature = "api")]
#[test]
fn a_request_allocates_twelve_times_at_most() {
    use dekseal::{Dek, api};
    use sha2::{Digest, Sha256};

    look_for_a_subscriber();
    let engine = Engine::new(one_key());
    let context = EncryptionContext::from_pairs([("tenant", "42"), ("purpose", "backup")]).unwrap();
    let bytes: [u8; 64] = core::array::from_fn(|at| at as u8);
    let sealed = engine
        .encrypt_dek(&key_id(KEY_ID), &context, &Dek::from_bytes(&bytes))
        .unwrap();
    let (cipher, plain) = (
        hex::encode(sealed),
        hex::encode(bytes) + &hex::encode(Sha256::digest(bytes)),
    );
    for (operation, fields) in [
        ("create-datakey", r#""datakey_length":"512""#.to_owned()),
        (
            "create-datakey-without-plaintext",
            r#""datakey_length":"512""#.to_owned(),
        ),
        (
            "encrypt-datakey",
            format!(r#""datakey_plain_length":"64","plain_text":"{plain}""#),
        ),
        (
            "decrypt-datakey",
            format!(r#""datakey_cipher_length":"64","cipher_text":"{cipher}""#),
        ),
    ] {
        // Every field of the API.
        let context = r#"{"tenant":"42","purpose":"backup"}"#;
        let sequence = "919c82d4-8046-4722-9094-35c3c6524cff";
        let body =
            format!(r#"{{"key_id":"{KEY_ID}",{fields},"sequence":"{sequence}","encryption_context":{context}}}"#);
        let path = format!("/v1.0/p/kms/{operation}");
        let mut status = 0;
        let count = allocations(|| {
            status = api::handle_with_rng(&engine, "POST", &path, body.as_bytes(), &mut Fixed(&bytes)).status();
        });
        assert_eq!(status, 200, "{operation}");
        assert!(count <= 12, "{operation}: {count} allocations");
    }
}

/// Bodies of the greatest length that use as much memory as possible, named by their contents.
#[cfg(feature = "api")]
fn greedy_bodies() -> Vec<(&'static str, String)> {
    const ROOM: usize = dekseal::api::MAX_BODY - 120;
    // No name may occur twice, so the short ones come first.
    let characters = || (' '..='~').filter(|c| !"\"\\".contains(*c));
    let longer = |names: &[String]| -> Vec<String> {
        let longer = |name| characters().map(move |c| format!("{name}{c}"));
        names.iter().flat_map(longer).collect()
    };
    let one = longer(&[String::new()]);
    let two = longer(&one);
    let names = [one, longer(&two), two].concat();
    let object = |length: usize, value: &str| {
        let mut object = String::from("{");
        for name in &names {
            if object.len() + name.len() + value.len() + 10 > length {
                break;
            }
            object += &format!("\"{name}\":{value},");
        }
        object + "\"\":0}"
    };
    let array = |items: usize, last: &str| format!("[{}{last}]", "0,".repeat(items));
    let field = |value: &str| format!("{{\"a\":{value}}}");
    let context =
        |context: &str| format!(r#"{{"key_id":"{KEY_ID}","datakey_length":512,"encryption_context":{context}}}"#);

    // One item more than the capacity, so that the list doubles.
    let arrays = (6..17).fold("0".to_owned(), |inner, power| array((1 << power) + 1, &inner));
    let objects = (0..20).fold("0".to_owned(), |inner, _| {
        object(ROOM / 20 - 10, "0").replacen('{', &format!("{{\"\u{7f}\":{inner},"), 1)
    });
    let chain = "{\"\":".repeat(30) + "0" + &"}".repeat(30);
    let longest: String = (0x10000..0x10000 + 8192)
        .filter_map(char::from_u32)
        .map(|key| format!("\"{key}\":\"\","))
        .collect();
    let longest = context(&format!("{{{}}}", longest.trim_end_matches(',')));
    vec![
        ("an object", object(ROOM, "0")),
        ("objects in an object", object(ROOM, "{\"\":0}")),
        ("chains of objects in an object", object(ROOM, &chain)),
        ("objects in one another", objects),
        ("an array", field(&array(ROOM / 2, "0"))),
        ("arrays in one another", field(&arrays)),
        ("arrays in an object", object(ROOM, "[0]")),
        ("strings with escapes", object(ROOM, r#""\n""#)),
        ("a string of escapes", field(&format!("\"{}\"", r"\n".repeat(ROOM / 2)))),
        ("a name of escapes", format!("{{\"{}\":0}}", r"\ud800".repeat(ROOM / 6))),
        ("a number", field(&"9".repeat(ROOM))),
        ("a context", context(&object(ROOM, "\"\""))),
        (
            "the longest context that is one",
            format!("{longest}{}", " ".repeat(ROOM - longest.len())),
        ),
    ]
}

#[cfg(feature = "api")]
#[test]
fn a_request_takes_32_times_the_longest_body_at_most() {
    use dekseal::api::{self, MAX_BODY};

    look_for_a_subscriber();
    let engine = Engine::new(one_key());
    let random: [u8; 64] = core::array::from_fn(|at| at as u8);
    let limit = MAX_BODY as u64;
    let mut greediest = 0;
    for (name, body) in greedy_bodies() {
        assert!((MAX_BODY - 500..=MAX_BODY).contains(&body.len()), "{name}");
        let (path, mut status) = ("/v1.0/p/kms/create-datakey", 0);
        let taken = measure(|| {
            status = api::handle_with_rng(&engine, "POST", path, body.as_bytes(), &mut Fixed(&random)).status();
        });
        assert_eq!(status, if name.contains("is one") { 200 } else { 400 }, "{name}");
        assert!(taken.bytes_max <= 32 * limit, "{name}: {} bytes", taken.bytes_max);
        greediest = greediest.max(taken.bytes_max);
    }
    // What takes the most are lists of values, which hold pointers.
    let expected = limit * (2 * size_of::<usize>()) as u64;
    assert!(greediest > expected, "the bodies are not what they are meant to be");

    // A body that is one byte too long, or many times too long, is not read.
    for length in [MAX_BODY + 1, 64 * MAX_BODY] {
        let body = vec![b'['; length];
        let mut code = None;
        let taken = measure(|| {
            code = api::handle_with_rng(&engine, "POST", "/v1.0/p/kms/create-datakey", &body, &mut Fixed(&[]))
                .error_code();
        });
        assert_eq!(code, Some("KMS.0203"));
        assert!(taken.bytes_total < 1024, "{} bytes", taken.bytes_total);
    }
}

/// A reader that recursed, or read a value once for each level above it, would allocate for each level.
#[cfg(feature = "api")]
#[test]
fn a_deeply_nested_body_allocates_no_more_than_a_flat_one() {
    use dekseal::api::{MAX_BODY, Request};

    let count = |body: &str| {
        let mut code = None;
        let count = allocations(|| {
            let refusal = Request::parse("POST", "/v1.0/p/kms/create-datakey", body.as_bytes()).unwrap_err();
            code = refusal.error_code();
        });
        assert_eq!(code, Some("KMS.0308"));
        count
    };
    // An array of as many items as fit into `length` bytes.
    let body = |item: &str, length: usize| {
        let items = vec![item; (length - 10) / (item.len() + 1)].join(",");
        format!(r#"{{"x":[{items}]}}"#)
    };
    let arrays = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let objects = |depth: usize| r#"{"\u0061":"#.repeat(depth) + "0" + &"}".repeat(depth);
    let objects_of_plain_names = |depth: usize| r#"{"a":"#.repeat(depth) + "0" + &"}".repeat(depth);
    let string = |depth: usize| format!("{}\"{}\"{}", "[".repeat(depth), "x".repeat(1000), "]".repeat(depth));
    for item in [
        arrays(125),
        arrays(1),
        objects_of_plain_names(125),
        objects_of_plain_names(1),
        string(125),
    ] {
        for length in [MAX_BODY / 8, MAX_BODY] {
            let count = count(&body(&item, length));
            assert!(
                count <= 32,
                "{count} allocations for {length} bytes of {}",
                &item[..item.len().min(20)]
            );
        }
    }
    // An unescaped name is one allocation, at any depth.
    let (deep, flat) = (objects(125), objects(1));
    let names = |item: &str| body(item, MAX_BODY).matches("u0061").count() as u64;
    for item in [deep, flat] {
        let count = count(&body(&item, MAX_BODY));
        assert!(
            count <= 2 * names(&item) + 32,
            "{count} allocations for {} names",
            names(&item)
        );
    }
}
