//! Tests by dudect's method whether the times of two classes of inputs differ. |t| above 10 means that they differ;
//! below 5 means that no difference was found.
//!
//! The control compares a valid and an invalid tag, which is public. Its classes must differ, and all others must not.
//!
//! The rows that begin with `power` contain a leak that was put there: one class does more work, or a comparison stops
//! at the first difference. They show how small a leak this number of samples finds on this machine.

use dekseal::{CmkVersion, Dek, EncryptionContext, Engine, MemoryKeyring, SealedDek, api, rand_core::Rng};
use dekseal_assurance::{CANONICAL, CONTEXT, KEY_ID, derived, forge, hex, key_id, random};
use dudect_bencher::{BenchRng, Class, CtRunner, ctbench_main};
use sha2::{Digest, Sha256};

const SAMPLES: usize = 500_000;
/// The number of repetitions in one measurement, because the clock is too coarse for one comparison of 64 bytes.
const IN_A_ROW: usize = 50;
const MATERIAL: [u8; 64] = [7; 64];
/// The offset of the tag in a blob.
const TAG: usize = 100;

fn context() -> EncryptionContext {
    EncryptionContext::from_pairs(CONTEXT).expect("allowed")
}

fn cmk() -> CmkVersion {
    CmkVersion::new(key_id(), 0, &MATERIAL).expect("64 bytes")
}

fn dek(rng: &mut BenchRng) -> [u8; 64] {
    let mut dek = [0; 64];
    rng.fill_bytes(&mut dek);
    dek
}

/// Times `f` on inputs that `make` makes. Half of the inputs, at random, are of the first class.
fn compare<I, T>(
    runner: &mut CtRunner,
    rng: &mut BenchRng,
    make: impl Fn(&mut BenchRng, bool) -> I,
    f: impl Fn(&I) -> T,
) {
    // In parts, so that the inputs stay in the cache.
    for _ in 0..SAMPLES / 1000 {
        let inputs: Vec<_> = (0..1000)
            .map(|_| {
                let first = rng.next_u32().is_multiple_of(2);
                (first, make(rng, first))
            })
            .collect();
        for (first, input) in &inputs {
            let class = if *first { Class::Left } else { Class::Right };
            runner.run_one(class, || f(input));
        }
    }
}

/// The blob with this byte changed, and with a correct checksum.
fn changed(sealed: &SealedDek, at: usize) -> SealedDek {
    let mut blob = *sealed.as_bytes();
    blob[at] ^= 1;
    let checksum = Sha256::digest(&blob[..156]);
    blob[156..].copy_from_slice(&checksum);
    SealedDek::from_bytes(&blob).expect("well-formed")
}

fn control_right_or_wrong_tag(runner: &mut CtRunner, rng: &mut BenchRng) {
    let (cmk, context) = (cmk(), context());
    let make = |rng: &mut BenchRng, right| {
        let sealed = cmk.seal(&context, &Dek::from_bytes(&dek(rng)));
        if right { sealed } else { changed(&sealed, TAG) }
    };
    compare(runner, rng, make, |sealed| cmk.open(&context, sealed).is_ok());
}

/// A tag that is wrong in its first or in its last byte: measures the time up to and including the comparison.
fn tag_wrong_in_first_or_last_byte(runner: &mut CtRunner, rng: &mut BenchRng) {
    let (cmk, context) = (cmk(), context());
    let make = |rng: &mut BenchRng, first| {
        let sealed = cmk.seal(&context, &Dek::from_bytes(&dek(rng)));
        changed(&sealed, if first { TAG } else { TAG + 15 })
    };
    compare(runner, rng, make, |sealed| cmk.open(&context, sealed).is_ok());
}

/// A valid tag, and a salt that is wrong in its first or in its last byte.
fn salt_wrong_in_first_or_last_byte(runner: &mut CtRunner, rng: &mut BenchRng) {
    let (cmk, context) = (cmk(), context());
    let key = derived(&key_id(), 0, &MATERIAL);
    let make = |rng: &mut BenchRng, first| {
        let dek = dek(rng);
        let mut salt = key.salt(CANONICAL, &dek);
        salt[if first { 0 } else { 31 }] ^= 1;
        forge(&key, &dek, &salt)
    };
    compare(runner, rng, make, |sealed| cmk.open(&context, sealed).is_ok());
}

fn deks_differ_in_first_or_last_byte(runner: &mut CtRunner, rng: &mut BenchRng) {
    let make = |rng: &mut BenchRng, first| {
        let dek = dek(rng);
        let mut other = dek;
        other[if first { 0 } else { 63 }] ^= 1;
        (Dek::from_bytes(&dek), Dek::from_bytes(&other))
    };
    compare(runner, rng, make, |(a, b)| {
        (0..IN_A_ROW).filter(|_| std::hint::black_box(a) == b).count()
    });
}

/// The response of decrypt-datakey for a DEK of zeros or a random DEK.
fn hex_of_zeros_or_random(runner: &mut CtRunner, rng: &mut BenchRng) {
    let (cmk, engine) = (cmk(), Engine::new(MemoryKeyring::from_versions([cmk()]).expect("one")));
    let make = |rng: &mut BenchRng, zeros| {
        let dek = if zeros { [0; 64] } else { dek(rng) };
        // Each blob has its own context, so that no blob is measured twice.
        let tenant = format!("{:016x}", rng.next_u64());
        let context = EncryptionContext::from_pairs([("tenant", &tenant)]).expect("allowed");
        let cipher_text = hex(cmk.seal(&context, &Dek::from_bytes(&dek)).as_bytes());
        format!(
            r#"{{"key_id":"{KEY_ID}","encryption_context":{{"tenant":"{tenant}"}},
                "cipher_text":"{cipher_text}","datakey_cipher_length":"64"}}"#
        )
    };
    compare(runner, rng, make, |body| {
        api::handle(&engine, "POST", "/v1.0/project/kms/decrypt-datakey", body.as_bytes()).status()
    });
}

/// Material with a half of zeros, or random material.
fn material_of_zeros_or_random(runner: &mut CtRunner, rng: &mut BenchRng) {
    let make = |rng: &mut BenchRng, zeros| {
        let mut material: [u8; 64] = random(rng.next_u64() >> 32);
        if zeros {
            material[32..].fill(0);
        }
        material
    };
    compare(runner, rng, make, |material| {
        CmkVersion::new(key_id(), 0, material).is_ok()
    });
}

/// Work whose time depends on `steps`. A step waits for the one before it.
fn work(steps: u32) {
    (0..steps).fold(1_u64, |product, _| std::hint::black_box(product.wrapping_mul(3)));
}

/// Opening a blob with a wrong tag. In one class the work of `STEPS` steps is added.
fn power_of_opening<const STEPS: u32>(runner: &mut CtRunner, rng: &mut BenchRng) {
    let (cmk, context) = (cmk(), context());
    let make = |rng: &mut BenchRng, more: bool| {
        let sealed = cmk.seal(&context, &Dek::from_bytes(&dek(rng)));
        (if more { STEPS } else { 0 }, changed(&sealed, TAG))
    };
    compare(runner, rng, make, |(steps, sealed)| {
        work(*steps);
        cmk.open(&context, sealed).is_ok()
    });
}

fn power_of_opening_with_1_step_more(runner: &mut CtRunner, rng: &mut BenchRng) {
    const STEPS: u32 = 100_000_000;
    let start = std::time::Instant::now();
    work(std::hint::black_box(STEPS));
    println!(
        "a step takes {:.2} ns",
        start.elapsed().as_secs_f64() * 1e9 / f64::from(STEPS)
    );
    power_of_opening::<1>(runner, rng);
}

fn power_of_opening_with_4_steps_more(runner: &mut CtRunner, rng: &mut BenchRng) {
    power_of_opening::<4>(runner, rng);
}

fn power_of_opening_with_16_steps_more(runner: &mut CtRunner, rng: &mut BenchRng) {
    power_of_opening::<16>(runner, rng);
}

/// As `deks_differ_in_first_or_last_byte`, with a comparison that stops at the first difference.
fn power_of_comparing_with_an_early_exit(runner: &mut CtRunner, rng: &mut BenchRng) {
    let make = |rng: &mut BenchRng, first| {
        let dek = dek(rng);
        let mut other = dek;
        other[if first { 0 } else { 63 }] ^= 1;
        (dek, other)
    };
    compare(runner, rng, make, |(a, b)| {
        let equal = || std::hint::black_box(a).iter().zip(b).all(|(a, b)| a == b);
        (0..IN_A_ROW).filter(|_| equal()).count()
    });
}

ctbench_main!(
    control_right_or_wrong_tag,
    tag_wrong_in_first_or_last_byte,
    salt_wrong_in_first_or_last_byte,
    deks_differ_in_first_or_last_byte,
    hex_of_zeros_or_random,
    material_of_zeros_or_random,
    power_of_opening_with_1_step_more,
    power_of_opening_with_4_steps_more,
    power_of_opening_with_16_steps_more,
    power_of_comparing_with_an_early_exit
);
