//! One version of one CMK: derives its keys, and seals and opens one DEK (FORMAT.md A4, and steps 6 and 7 of A5).

use core::fmt;

use aes_gcm::{AeadInOut, AesGcm, KeyInit, aead::consts::U12, aes::Aes256Enc};
use arrayvec::ArrayVec;
use zeroize::ZeroizeOnDrop;

use crate::{
    blob::{self, CIPHERTEXT_LEN, HEADER, HEADER_LEN, Parts, SALT_LEN, SealedDek, TRAILER_LEN},
    context::EncryptionContext,
    dek::Dek,
    error::{Error, ErrorKind},
    key_id::KeyId,
    labels,
    secret::{Secret, ct_eq},
    sha256::HmacKey,
};

/// AES-256-GCM with a 96-bit nonce and a 128-bit tag. GCM decrypts with the forward cipher too, so this type has no key
/// schedule for decryption.
pub(crate) type Aes256Gcm = AesGcm<Aes256Enc, U12>;

/// What a payload computes from the DEK while the DEK is sealed or opened. `()` computes nothing.
///
/// A processor works on several steps at once if none needs the result of another. So the steps of a seal and those of
/// a payload are called in turns.
pub(crate) trait Beside {
    /// Another MAC of the DEK: its key, and the place for the MAC. It is made together with the salt.
    fn mac(&mut self) -> Option<(&HmacKey, &mut Secret<KEY_LEN>)>;

    /// Called after [`mac`](Self::mac) during a seal, while AES-GCM is being set up.
    fn meanwhile(&mut self) {}
}

impl Beside for () {
    #[inline]
    fn mac(&mut self) -> Option<(&HmacKey, &mut Secret<KEY_LEN>)> {
        None
    }
}

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;
/// The longest AAD that is joined on the stack.
const AAD_ON_STACK: usize = 1024;
const _: () = assert!(AAD_ON_STACK == HEADER_LEN + TRAILER_LEN + 980);

/// One version of one customer master key. It seals and opens DEKs.
///
/// It holds the derived keys, not the secret material, and wipes them on drop. It cannot be cloned, printed or
/// serialized; `Debug` shows the key ID and the version.
///
/// ```compile_fail,E0599
/// # fn f(cmk: dekseal::CmkVersion) {
/// let copy = cmk.clone();
/// # }
/// ```
/// ```compile_fail,E0277
/// # fn f(cmk: dekseal::CmkVersion) {
/// println!("{cmk}");
/// # }
/// ```
/// ```compile_fail,E0277
/// # fn f(cmk: dekseal::CmkVersion) {
/// serde_json::to_string(&cmk).ok();
/// # }
/// ```
///
/// # Examples
///
#[cfg_attr(feature = "std", doc = "```")]
#[cfg_attr(not(feature = "std"), doc = "```ignore (needs the feature std)")]
/// use dekseal::{CmkVersion, Dek, EncryptionContext};
///
/// # let material = [7; 32];
/// let cmk = CmkVersion::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?, 0, &material)?;
/// let context = EncryptionContext::from_pairs([("tenant", "42")])?;
///
/// let dek = Dek::generate()?;
/// let sealed = cmk.seal(&context, &dek);
/// assert_eq!(sealed.as_bytes().len(), 188);
/// assert_eq!(cmk.open(&context, &sealed)?, dek);
/// # Ok::<(), dekseal::Error>(())
/// ```
pub struct CmkVersion {
    /// The key ID and the key version.
    trailer: [u8; TRAILER_LEN],
    /// HMAC under `salt_key`.
    salt_mac: HmacKey,
    /// HKDF-Expand under `wrap_key`.
    wrap: HmacKey,
}

impl CmkVersion {
    /// Makes version `key_version` of the CMK `key_id` from its secret material: 32 to 64 uniformly random bytes.
    ///
    /// The first version of a key is 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidMaterial`] if the material is shorter or longer; no others.
    ///
    /// # Security
    ///
    /// Never use a password, or material that is derived from one: this function does not slow down guessing. The
    /// caller must wipe the material.
    ///
    /// # Examples
    ///
    /// ```
    /// use dekseal::{CmkVersion, ErrorKind};
    ///
    /// # let material = [7; 64];
    /// let cmk = CmkVersion::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?, 3, &material)?;
    /// assert_eq!(cmk.key_id().as_str(), "0d0466b0-e727-4d9c-b35d-f84bb474a37f");
    /// assert_eq!(cmk.key_version(), 3);
    ///
    /// let error = CmkVersion::new(cmk.key_id(), 4, b"a password").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidMaterial);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn new(key_id: KeyId, key_version: u32, material: &[u8]) -> Result<Self, Error> {
        // Each key is filled in place, because a move would leave a copy of the key on the stack.
        let [mut prk, mut salt_key, mut wrap_key] = [const { Secret::zeroed() }; 3];
        extract(material, &mut prk)?;
        let prk = HmacKey::new(&prk);
        let trailer = blob::trailer(&key_id, key_version);
        prk.expand::<2, _, _>(labels::SALT_KEY, &trailer, &mut salt_key);
        prk.expand::<2, _, _>(labels::WRAP_KEY, &trailer, &mut wrap_key);
        Ok(Self {
            trailer,
            salt_mac: HmacKey::new(&salt_key),
            wrap: HmacKey::new(&wrap_key),
        })
    }

    /// The ID of the CMK.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        blob::key_id_of(&self.trailer)
    }

    /// The version of the CMK.
    #[must_use]
    pub fn key_version(&self) -> u32 {
        blob::key_version_of(&self.trailer)
    }

    /// Seals `dek` (FORMAT.md A4).
    ///
    /// Sealing is deterministic: the same DEK under the same CMK version and context gives the same blob. It allocates
    /// nothing, unless the canonical context is longer than 980 bytes.
    ///
    /// # Panics
    ///
    /// Never: AES-256-GCM fails only above its length limits, and a context is checked when it is made.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, Dek, EncryptionContext};
    /// # let cmk = CmkVersion::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?, 0, &[7; 32])?;
    /// # let dek = Dek::from_bytes(&core::array::from_fn(|at| at as u8));
    /// let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// let sealed = cmk.seal(&context, &dek);
    /// assert_eq!(cmk.seal(&context, &dek), sealed);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    #[must_use]
    pub fn seal(&self, context: &EncryptionContext, dek: &Dek) -> SealedDek {
        let mut sealed = SealedDek::zeroed();
        self.seal_into(context, dek, &mut sealed);
        sealed
    }

    /// Seals `dek` into `sealed`.
    #[inline]
    pub(crate) fn seal_into(&self, context: &EncryptionContext, dek: &Dek, sealed: &mut SealedDek) {
        self.seal_beside(context, dek, sealed, &mut ());
    }

    /// [`seal_into`](Self::seal_into), with other work on the DEK.
    pub(crate) fn seal_beside<B: Beside>(
        &self,
        context: &EncryptionContext,
        dek: &Dek,
        sealed: &mut SealedDek,
        beside: &mut B,
    ) {
        // The AAD is joined first. GCM loads it in wide words, which have to wait for bytes that were just written.
        with_aad(&self.trailer, context, |aad| {
            sealed.make(&self.trailer, |Parts { salt, body, tag }| {
                // "HMAC and GCM must read the DEK from one copy that nothing else can write to". The copy is encrypted
                // in place.
                *body = *dek.expose_secret();
                self.salt(context, body, salt, beside);
                let made = self.gcm(salt, |gcm, nonce| {
                    beside.meanwhile();
                    gcm.encrypt_inout_detached(nonce.into(), aad, body.as_mut_slice().into())
                });
                #[expect(
                    clippy::expect_used,
                    reason = "64 bytes and 65,582 of AAD are within every limit; see Panics"
                )]
                let made = made.expect("within the limits of AES-256-GCM");
                *tag = made.into();
            });
        });
    }

    /// Opens `sealed` (FORMAT.md A5, steps 4 to 7).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyMismatch`] or [`ErrorKind::UnknownKeyVersion`] if the blob names another key ID or version than
    /// this one; [`ErrorKind::AuthenticationFailed`] if the material or the context is wrong, or the blob was changed.
    /// No others.
    ///
    /// # Examples
    ///
    /// ```
    /// # use dekseal::{CmkVersion, Dek, EncryptionContext, ErrorKind};
    /// # let cmk = CmkVersion::new("0d0466b0-e727-4d9c-b35d-f84bb474a37f".parse()?, 0, &[7; 32])?;
    /// # let dek = Dek::from_bytes(&core::array::from_fn(|at| at as u8));
    /// let context = EncryptionContext::from_pairs([("tenant", "42")])?;
    /// let sealed = cmk.seal(&context, &dek);
    /// assert_eq!(cmk.open(&context, &sealed)?, dek);
    ///
    /// let other = EncryptionContext::from_pairs([("tenant", "43")])?;
    /// assert_eq!(cmk.open(&other, &sealed).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    /// # Ok::<(), dekseal::Error>(())
    /// ```
    pub fn open(&self, context: &EncryptionContext, sealed: &SealedDek) -> Result<Dek, Error> {
        let mut dek = Dek::zeroed();
        self.open_into(context, sealed, &mut dek)?;
        Ok(dek)
    }

    /// Opens `sealed` into `dek`. On an error, `dek` holds no secret.
    #[inline]
    pub(crate) fn open_into(
        &self,
        context: &EncryptionContext,
        sealed: &SealedDek,
        dek: &mut Dek,
    ) -> Result<(), Error> {
        self.open_beside(context, sealed, dek, &mut ())
    }

    /// [`open_into`](Self::open_into), with another MAC of the DEK.
    pub(crate) fn open_beside<B: Beside>(
        &self,
        context: &EncryptionContext,
        sealed: &SealedDek,
        dek: &mut Dek,
        beside: &mut B,
    ) -> Result<(), Error> {
        if sealed.key_id() != self.key_id() {
            let error = Error::from(ErrorKind::KeyMismatch).with_key_id(&self.key_id());
            return Err(error.with_found(&sealed.key_id(), None));
        }
        if sealed.key_version() != self.key_version() {
            return Err(ErrorKind::UnknownKeyVersion.into());
        }
        // Step 6. If the tag is wrong, the buffer still holds the ciphertext.
        let body = dek.expose_mut();
        body.copy_from_slice(sealed.ciphertext());
        let opened = with_aad(&self.trailer, context, |aad| {
            self.gcm(sealed.salt(), |gcm, nonce| {
                gcm.decrypt_inout_detached(nonce.into(), aad, body.as_mut_slice().into(), sealed.tag().into())
            })
        });
        opened.ok_or(ErrorKind::AuthenticationFailed)?;
        // Step 7: the salt must be that of this DEK in this context. The comparison is constant-time.
        let mut salt = [0; SALT_LEN];
        self.salt(context, body, &mut salt, beside);
        if ct_eq(&salt, sealed.salt()) {
            Ok(())
        } else {
            body.wipe();
            Err(ErrorKind::AuthenticationFailed.into())
        }
    }

    /// Derives a key for another purpose: `HKDF-Expand(wrap_key, info = label, L = 32)`.
    #[cfg(feature = "file-keyring")]
    pub(crate) fn derive<const N: usize>(&self, label: &[u8; N], key: &mut [u8; KEY_LEN]) {
        self.wrap.expand::<1, N, 0>(label, &[], key);
    }

    /// The MAC of `message` under a key for another purpose: `HMAC-SHA-256(HKDF-Expand(wrap_key, label, 32), message)`.
    #[cfg(feature = "file-keyring")]
    pub(crate) fn mac<const N: usize>(&self, label: &[u8; N], message: &[u8]) -> [u8; KEY_LEN] {
        let (mut key, mut mac) = (Secret::zeroed(), [0; KEY_LEN]);
        self.derive(label, &mut key);
        HmacKey::new(&key).mac_of(message, &mut mac);
        mac
    }

    /// `salt = HMAC-SHA-256(salt_key, SHA-256(context) ‖ dek)`
    #[inline]
    fn salt(
        &self,
        context: &EncryptionContext,
        dek: &[u8; CIPHERTEXT_LEN],
        salt: &mut [u8; SALT_LEN],
        beside: &mut impl Beside,
    ) {
        let message = (context.sha256(), dek);
        match beside.mac() {
            Some((key, mac)) => self.salt_mac.mac_beside::<2, _, _>(message, salt, (key, mac)),
            None => self.salt_mac.mac::<2, _, _, 0>((message.0, message.1, &[]), salt),
        }
    }

    /// `key = HKDF-Expand(wrap_key, info = "dekseal/v2 key" ‖ salt, L = 32)`
    #[inline]
    fn blob_key(&self, salt: &[u8; SALT_LEN], key: &mut [u8; KEY_LEN]) {
        self.wrap.expand::<1, _, _>(labels::BLOB_KEY, salt, key);
    }

    /// Calls `f` with AES-256-GCM under the key of the blob, and its nonce. Returns `None` if the tag is wrong. No
    /// length here exceeds the limits of AES-256-GCM.
    #[inline]
    fn gcm<T>(
        &self,
        salt: &[u8; SALT_LEN],
        f: impl FnOnce(&Aes256Gcm, &[u8; NONCE_LEN]) -> Result<T, aes_gcm::Error>,
    ) -> Option<T> {
        let mut key = Secret::zeroed();
        self.blob_key(salt, &mut key);
        let gcm = Aes256Gcm::new((&*key).into());
        // nonce = salt[0..12]
        f(&gcm, salt.first_chunk()?).ok()
    }
}

/// Computes `PRK = HKDF-Extract(salt = "dekseal/v2", IKM = material)`, if the material has an allowed length.
fn extract(material: &[u8], prk: &mut [u8; KEY_LEN]) -> Result<(), Error> {
    if !(32..=64).contains(&material.len()) {
        return Err(ErrorKind::InvalidMaterial.into());
    }
    labels::EXTRACT.mac_of(material, prk);
    Ok(())
}

/// Calls `f` with `aad = blob[0..4] ‖ trailer ‖ context`, as the one slice that aes-gcm needs.
fn with_aad<T>(trailer: &[u8; TRAILER_LEN], context: &EncryptionContext, f: impl FnOnce(&[u8]) -> T) -> T {
    let mut joined = ArrayVec::<u8, AAD_ON_STACK>::new();
    // One append for each part: copies of constant length are inlined.
    let fits = joined.try_extend_from_slice(&HEADER).is_ok()
        && joined.try_extend_from_slice(trailer).is_ok()
        && joined.try_extend_from_slice(context.canonical()).is_ok();
    if fits {
        f(&joined)
    } else {
        // A long context is joined on the heap, because it would take 64 KiB of stack. It is not secret.
        f(&[&HEADER, trailer.as_slice(), context.canonical()].concat())
    }
}

impl fmt::Debug for CmkVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CmkVersion({} version {}, ..)", self.key_id(), self.key_version())
    }
}

// The derived keys are in the states of two HMACs, which wipe themselves.
impl ZeroizeOnDrop for CmkVersion {}
const _: () = {
    const fn wiped_on_drop<T: ZeroizeOnDrop>() {}
    wiped_on_drop::<HmacKey>();
    wiped_on_drop::<Aes256Gcm>();
};

#[cfg(test)]
mod tests;
