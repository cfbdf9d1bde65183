//! The AWS Encryption SDK with a raw AES keyring: the key is the message.

use std::{collections::HashMap, marker::PhantomData};

use aws_esdk::{
    AwsEncryptionSdkConfig, Client,
    material_providers::{
        client::Client as MaterialProviders,
        types::{
            AesWrappingAlg, EsdkAlgorithmSuiteId, keyring::KeyringRef,
            material_providers_config::MaterialProvidersConfig,
        },
    },
};
use aws_smithy_types::Blob;
use tokio::runtime::{Builder, Runtime};

use crate::peer::{Binding, Bytes, Facts, MASTER_KEY, Pairs, Peer};

/// An algorithm suite that commits to the key, as the SDK's default policy requires.
pub trait Suite {
    const ID: EsdkAlgorithmSuiteId;
    const NAME: &'static str;
}

pub struct Unsigned;

impl Suite for Unsigned {
    const ID: EsdkAlgorithmSuiteId = EsdkAlgorithmSuiteId::AlgAes256GcmHkdfSha512CommitKey;
    const NAME: &'static str = "aws-esdk, raw AES keyring, without signature";
}

pub struct Signed;

impl Suite for Signed {
    const ID: EsdkAlgorithmSuiteId = EsdkAlgorithmSuiteId::AlgAes256GcmHkdfSha512CommitKeyEcdsaP384;
    const NAME: &'static str = "aws-esdk, raw AES keyring, ECDSA P-384 signature (its default)";
}

pub struct Esdk<S> {
    client: Client,
    keyring: KeyringRef,
    runtime: Runtime,
    suite: PhantomData<S>,
}

impl<S> Esdk<S> {
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .build()
            .expect("a runtime without drivers starts");
        let config = AwsEncryptionSdkConfig::builder()
            .build()
            .expect("the defaults are valid");
        let client = Client::from_conf(config).expect("the defaults are valid");
        let config = MaterialProvidersConfig::builder()
            .build()
            .expect("the defaults are valid");
        let providers = MaterialProviders::from_conf(config).expect("the defaults are valid");
        let keyring = providers
            .create_raw_aes_keyring()
            .key_namespace("peers")
            .key_name("master")
            .wrapping_key(Blob::new(MASTER_KEY))
            .wrapping_alg(AesWrappingAlg::AlgAes256GcmIv12Tag16)
            .send();
        let keyring = runtime.block_on(keyring).expect("the key is 32 bytes");
        Self {
            client,
            keyring,
            runtime,
            suite: PhantomData,
        }
    }
}

impl<S: Suite> Esdk<S> {
    pub fn seal(&self, context: &HashMap<String, String>, plaintext: &[u8]) -> Blob {
        let request = self
            .client
            .encrypt()
            .plaintext(Blob::new(plaintext))
            .keyring(self.keyring.clone())
            .encryption_context(context.clone())
            .algorithm_suite_id(S::ID)
            .send();
        let answer = self.runtime.block_on(request).expect("the request is valid");
        answer.ciphertext.expect("an answer has a ciphertext")
    }

    pub fn open(&self, context: &HashMap<String, String>, sealed: &Blob) -> Option<Blob> {
        let request = self
            .client
            .decrypt()
            .ciphertext(sealed.clone())
            .keyring(self.keyring.clone())
            .encryption_context(context.clone())
            .send();
        self.runtime.block_on(request).ok()?.plaintext
    }
}

impl Bytes for Blob {
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }
}

impl<S: Suite> Peer for Esdk<S> {
    const FACTS: Facts = Facts {
        name: S::NAME,
        package: ("aws-esdk", "1."),
        randomness: "that of aws-lc-rs",
        nonce: "random 96-bit; message key derived",
        commitment: "key",
        binding: Binding::Map,
    };
    type Context = HashMap<String, String>;
    type Made = ([u8; 64], Blob);
    type Unwrapped = Blob;

    fn context(pairs: Pairs) -> Self::Context {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn wrap(&self, context: &Self::Context) -> Self::Made {
        let mut key = [0; 64];
        aws_lc_rs::rand::fill(&mut key).expect("there is randomness");
        (key, self.seal(context, &key))
    }

    fn unwrap(&self, context: &Self::Context, (_, wrapped): &Self::Made) -> Option<Blob> {
        self.open(context, wrapped)
    }
}
