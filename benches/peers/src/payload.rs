//! A row of the table of payloads: a peer that encrypts data, and the facts about how it does it.

use std::{
    cell::RefCell,
    hint::black_box,
    io::{self, Read, Write},
    rc::Rc,
};

use crate::peer::{Binding, Bytes, CONTEXT, Job, Pairs, Row, WRONG_CONTEXT};

/// The length of the data.
pub const PLAINTEXT_LEN: usize = 16 << 20;
/// The length of the pieces in which a streaming peer gets and returns the data.
pub const PIECE_LEN: usize = 64 << 10;
/// The room for the data and the overhead of any peer. A reader needs some room after the data: a read of zero bytes
/// does not report the end.
const ROOM_LEN: usize = PLAINTEXT_LEN + PIECE_LEN;

/// A peer, and its way to do the job. As with [`Peer`](crate::peer::Peer), it has its own types.
pub trait PayloadPeer {
    const FACTS: PayloadFacts;
    /// The length of the last segment in a ciphertext.
    const LAST_SEGMENT_LEN: usize;
    /// The context in the form that a service would already have.
    type Context;
    /// A ciphertext, in the given room or in memory of the peer's own.
    type Sealed<'a>: Bytes;
    /// A ciphertext in the form that a service would already have.
    type Stored: for<'a> From<&'a [u8]>;
    /// The decrypted data, in the given room or in memory of the peer's own.
    type Opened<'a>: Bytes;

    fn context(pairs: Pairs) -> Self::Context;
    /// Encrypts under a key that no other message has. `room` has enough capacity and any contents.
    fn encrypt<'a>(&self, context: &Self::Context, plaintext: &[u8], room: &'a mut Vec<u8>) -> Self::Sealed<'a>;
    /// Returns `None` if the peer refuses, even after it has returned some data.
    fn decrypt<'a>(
        &self,
        context: &Self::Context,
        stored: &Self::Stored,
        room: &'a mut [u8],
    ) -> Option<Self::Opened<'a>>;
}

/// The facts that are printed beside the numbers.
#[derive(Default)]
pub struct PayloadFacts {
    pub name: &'static str,
    /// The package, and the start of its version, to find the full version in the lock file.
    pub package: (&'static str, &'static str),
    pub aead: &'static str,
    pub segment: &'static str,
    pub truncation: Truncation,
    pub random_access: &'static str,
    pub commitment: &'static str,
    pub binding: Binding,
}

/// Whether a truncated ciphertext is refused if it was cut at the end of a segment, after the first byte of a segment,
/// or before the last byte.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Truncation {
    #[default]
    Detected,
    /// It is accepted when it is cut at this place.
    Missed(&'static str),
}

/// The memory that all rows share, so that no row has pages or cache lines that another lacks.
pub struct Rooms {
    plaintext: Vec<u8>,
    sealed: RefCell<Vec<u8>>,
    opened: RefCell<Vec<u8>>,
}

impl Rooms {
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            // Numbers, so that no two segments are alike.
            plaintext: (0..PLAINTEXT_LEN as u64 / 8).flat_map(u64::to_le_bytes).collect(),
            sealed: RefCell::new(Vec::with_capacity(ROOM_LEN)),
            opened: RefCell::new(vec![0; ROOM_LEN]),
        })
    }
}

/// Makes the row of a peer, after checking that the peer does the job.
pub fn measured<P>(peer: P, rooms: &Rc<Rooms>) -> Result<Row<PayloadFacts>, String>
where
    P: PayloadPeer<Context: 'static, Stored: 'static> + 'static,
{
    let context = P::context(CONTEXT);
    let sealed = peer
        .encrypt(&context, &rooms.plaintext, &mut rooms.sealed.borrow_mut())
        .bytes()
        .to_vec();
    check(&peer, &context, &sealed, rooms).map_err(|fault| format!("{}: {fault}", P::FACTS.name))?;

    let len = sealed.len();
    let stored = P::Stored::from(&sealed);
    let shared = Rc::new((peer, context, stored, Rc::clone(rooms)));
    let there = {
        let shared = Rc::clone(&shared);
        Box::new(move |times| {
            let (peer, context, _, rooms) = &*shared;
            let mut room = rooms.sealed.borrow_mut();
            for _ in 0..times {
                let sealed = peer.encrypt(black_box(context), black_box(&rooms.plaintext), &mut room);
                assert!(black_box(sealed).bytes().len() > PLAINTEXT_LEN);
            }
        })
    };
    let back = Box::new(move |times| {
        let (peer, context, stored, rooms) = &*shared;
        let mut room = rooms.opened.borrow_mut();
        for _ in 0..times {
            let opened = peer.decrypt(black_box(context), black_box(stored), &mut room);
            let opened = black_box(opened).expect("it was decrypted before");
            assert_eq!(opened.bytes().len(), PLAINTEXT_LEN);
        }
    });
    Ok(Row {
        facts: P::FACTS,
        job: Ok(Job { there, back, len }),
    })
}

fn check<P: PayloadPeer>(peer: &P, context: &P::Context, sealed: &[u8], rooms: &Rooms) -> Result<(), &'static str> {
    let mut room = rooms.opened.borrow_mut();
    // The previous peer left the same data there.
    room.fill(0);
    let opened = peer
        .decrypt(context, &sealed.into(), &mut room)
        .ok_or("does not decrypt what it encrypted")?;
    if opened.bytes() != rooms.plaintext {
        return Err("decrypts to other data");
    }
    drop(opened);

    let mut opens = |context: &P::Context, sealed: &[u8]| peer.decrypt(context, &sealed.into(), &mut room).is_some();
    if P::FACTS.binding != Binding::None && opens(&P::context(WRONG_CONTEXT), sealed) {
        return Err("decrypts with the wrong context");
    }
    let end = sealed.len();
    let last = end - P::LAST_SEGMENT_LEN;
    let mut changed = sealed.to_vec();
    for at in [0, end / 2, last - 1, last, end - 1] {
        changed[at] ^= 1;
        if opens(context, &changed) {
            return Err("decrypts what was changed");
        }
        changed[at] ^= 1;
    }
    let missed = [last, last + 1, end - 1].map(|cut| opens(context, &sealed[..cut]));
    if missed.contains(&true) == (P::FACTS.truncation == Truncation::Detected) {
        return Err("does not take what was cut short as its facts say");
    }

    let again = &mut rooms.sealed.borrow_mut();
    if peer.encrypt(context, &rooms.plaintext, again).bytes() == sealed {
        return Err("encrypts alike twice");
    }
    Ok(())
}

/// Writes the data in pieces, as a service would.
pub fn write_pieces(writer: &mut (impl Write + ?Sized), plaintext: &[u8]) {
    for piece in plaintext.chunks(PIECE_LEN) {
        writer.write_all(piece).expect("memory takes what is written");
    }
}

/// Reads to the end in pieces, as a service would.
pub fn read_pieces(mut reader: impl Read, room: &mut [u8]) -> io::Result<&[u8]> {
    let mut filled = 0;
    loop {
        let end = room.len().min(filled + PIECE_LEN);
        match reader.read(&mut room[filled..end])? {
            0 => return Ok(&room[..filled]),
            count => filled += count,
        }
    }
}
