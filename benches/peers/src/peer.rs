//! A row of the table of keys: a peer that does the job, and the facts about how it does it.

use std::{collections::BTreeMap, hint::black_box, rc::Rc};

use secret_vault_value::SecretValue;

/// The encryption context of the job.
pub const CONTEXT: Pairs = [("tenant", "42"), ("purpose", "backup")];
/// A context that must not open what was wrapped with [`CONTEXT`].
pub const WRONG_CONTEXT: Pairs = [("tenant", "43"), ("purpose", "backup")];
/// The 256-bit master key of every peer that takes one.
pub const MASTER_KEY: [u8; 32] = [0x5a; 32];

pub type Pairs = [(&'static str, &'static str); 2];
/// A context as a service holds it, if the library has no type for it.
pub type Map = BTreeMap<&'static str, &'static str>;

/// A peer, and its way to do the job.
///
/// Each peer has its own input and output types, so that the measurement includes no conversions.
pub trait Peer {
    const FACTS: Facts;
    /// The context in the form that a service would already have.
    type Context;
    type Made: Made;
    type Unwrapped: Bytes;

    fn context(pairs: Pairs) -> Self::Context;
    /// Makes a key and wraps it.
    fn wrap(&self, context: &Self::Context) -> Self::Made;
    /// Returns `None` if the peer refuses.
    fn unwrap(&self, context: &Self::Context, made: &Self::Made) -> Option<Self::Unwrapped>;
}

/// The facts that are printed beside the numbers.
#[derive(Default)]
pub struct Facts {
    pub name: &'static str,
    /// The package, and the start of its version, to find the full version in the lock file.
    pub package: (&'static str, &'static str),
    pub randomness: &'static str,
    pub nonce: &'static str,
    pub commitment: &'static str,
    pub binding: Binding,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub enum Binding {
    #[default]
    None,
    /// The caller's raw bytes, as associated data.
    Bytes,
    /// A map of names to values, in one canonical form.
    Map,
}

/// A new key in plaintext and wrapped.
pub trait Made {
    fn key(&self) -> &[u8];
    fn wrapped(&self) -> &[u8];
}

impl<K: Bytes, W: Bytes> Made for (K, W) {
    fn key(&self) -> &[u8] {
        self.0.bytes()
    }

    fn wrapped(&self) -> &[u8] {
        self.1.bytes()
    }
}

pub trait Bytes {
    fn bytes(&self) -> &[u8];
}

impl<const N: usize> Bytes for [u8; N] {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Bytes for &[u8] {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Bytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Bytes for SecretValue {
    fn bytes(&self) -> &[u8] {
        self.as_sensitive_bytes()
    }
}

/// A line of a table.
pub struct Row<F> {
    pub facts: F,
    pub job: Result<Job, &'static str>,
}

/// A peer as two closures. Each repeats its direction the given number of times.
pub struct Job {
    /// Wraps or encrypts.
    pub there: Box<dyn Fn(u64)>,
    /// Unwraps or decrypts.
    pub back: Box<dyn Fn(u64)>,
    /// The length of the wrapped or encrypted data.
    pub len: usize,
}

/// Makes the row of a peer, after checking that the peer does the job.
pub fn measured<P: Peer<Context: 'static, Made: 'static> + 'static>(peer: P) -> Result<Row<Facts>, String> {
    let context = P::context(CONTEXT);
    let made = peer.wrap(&context);
    check(&peer, &context, &made).map_err(|fault| format!("{}: {fault}", P::FACTS.name))?;

    let len = made.wrapped().len();
    let shared = Rc::new((peer, context, made));
    let there = {
        let shared = Rc::clone(&shared);
        Box::new(move |times| {
            let (peer, context, _) = &*shared;
            for _ in 0..times {
                black_box(peer.wrap(black_box(context)));
            }
        })
    };
    let back = Box::new(move |times| {
        let (peer, context, made) = &*shared;
        for _ in 0..times {
            black_box(peer.unwrap(black_box(context), black_box(made)));
        }
    });
    Ok(Row {
        facts: P::FACTS,
        job: Ok(Job { there, back, len }),
    })
}

fn check<P: Peer>(peer: &P, context: &P::Context, made: &P::Made) -> Result<(), &'static str> {
    let unwrapped = peer.unwrap(context, made).ok_or("does not unwrap what it wrapped")?;
    if unwrapped.bytes() != made.key() {
        return Err("unwraps to another key");
    }
    if P::FACTS.binding != Binding::None && peer.unwrap(&P::context(WRONG_CONTEXT), made).is_some() {
        return Err("unwraps with the wrong context");
    }
    if peer.wrap(context).key() == made.key() {
        return Err("makes the same key twice");
    }
    Ok(())
}

/// The row of a peer that is not in this build.
#[cfg(not(feature = "dekseal"))]
pub fn absent<F>(facts: F, reason: &'static str) -> Row<F> {
    Row {
        facts,
        job: Err(reason),
    }
}

pub fn map(pairs: Pairs) -> Map {
    pairs.into()
}

/// The associated data that a service author would make of a context for a peer that takes bytes: each name and each
/// value after its length, in the order of the map. It takes one allocation.
pub fn joined(context: &Map) -> Vec<u8> {
    let parts = || context.iter().flat_map(|(name, value)| [name, value]);
    let mut bytes = Vec::with_capacity(parts().map(|part| size_of::<u32>() + part.len()).sum());
    for part in parts() {
        let len = u32::try_from(part.len()).expect("a context is short");
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// [`joined`] for a peer that takes text. With lengths below 128, the bytes are valid UTF-8.
pub fn joined_text(context: &Map) -> String {
    String::from_utf8(joined(context)).expect("the lengths are below 128")
}

/// The output of a future that never waits, without the cost of a runtime.
pub fn ready<F: Future>(future: F) -> F::Output {
    use std::task::{Context, Poll, Waker};

    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("an in-process peer has nothing to wait for"),
    }
}
