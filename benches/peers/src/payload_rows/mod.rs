//! The peers for the job of the payloads.

mod age;
mod by_hand;
#[cfg(feature = "dekseal")]
mod dekseal;
mod esdk;
mod tink;

use crate::{
    esdk_rows::{Esdk, Unsigned},
    payload::{PayloadFacts, Rooms, measured},
    peer::Row,
};

/// All rows of the table of payloads.
pub fn rows() -> Result<Vec<Row<PayloadFacts>>, String> {
    let rooms = &Rooms::new();
    Ok(vec![
        #[cfg(feature = "dekseal")]
        measured(dekseal::Stream::new(), rooms)?,
        #[cfg(feature = "dekseal")]
        measured(dekseal::Whole::new(), rooms)?,
        #[cfg(feature = "dekseal")]
        measured(dekseal::IntoBuffer::new(), rooms)?,
        #[cfg(not(feature = "dekseal"))]
        crate::peer::absent(
            PayloadFacts {
                name: "dekseal",
                package: ("dekseal", "0."),
                ..PayloadFacts::default()
            },
            crate::NO_DEKSEAL,
        ),
        measured(by_hand::ByHand::<by_hand::Ring>::new(), rooms)?,
        measured(by_hand::ByHand::<by_hand::AwsLc>::new(), rooms)?,
        measured(by_hand::ByHand::<by_hand::RustCrypto<aes_gcm::Aes256Gcm>>::new(), rooms)?,
        measured(by_hand::ByHand::<by_hand::AesGcm010>::new(), rooms)?,
        measured(
            by_hand::ByHand::<by_hand::RustCrypto<chacha20poly1305::ChaCha20Poly1305>>::new(),
            rooms,
        )?,
        measured(age::Age::new(), rooms)?,
        measured(tink::Tink::new(), rooms)?,
        measured(Esdk::<Unsigned>::new(), rooms)?,
    ])
}
