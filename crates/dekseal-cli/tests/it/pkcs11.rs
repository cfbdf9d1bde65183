//! A root in SoftHSM2.

use std::{fs, path::PathBuf, process::Command};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    object::{Attribute, AttributeType, KeyType, ObjectClass},
    session::UserType,
    types::AuthPin,
};

use crate::support::{KEY_ID, Place, fails, succeeds, write_private};

const PIN: &str = "9382745";

/// The library of SoftHSM2, where Debian and Fedora have it.
fn module() -> Option<PathBuf> {
    let places = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/lib/libsofthsm2.so",
    ];
    let found = places.iter().map(PathBuf::from).find(|path| path.exists());
    let found = found.filter(|_| Command::new("softhsm2-util").arg("--version").output().is_ok());
    if found.is_none() {
        let required = std::env::var_os("REQUIRE_TOOLS").is_some_and(|value| value == "1");
        assert!(!required, "SoftHSM2 is missing");
    }
    found
}

/// A place with the tokens `prod` and `other`.
struct Hsm {
    place: Place,
    module: PathBuf,
}

impl Hsm {
    fn new() -> Option<Self> {
        let hsm = Self {
            place: Place::new(),
            module: module()?,
        };
        fs::create_dir(hsm.place.path("tokens")).unwrap();
        let config = format!("directories.tokendir = {}\n", hsm.place.path("tokens").display());
        fs::write(hsm.place.path("softhsm2.conf"), config).unwrap();
        write_private(&hsm.place.path("pin"), format!("{PIN}\n"));
        for token in ["prod", "other"] {
            let mut init = hsm.with_tokens(Command::new("softhsm2-util"));
            init.args([
                "--init-token",
                "--free",
                "--label",
                token,
                "--so-pin",
                "12345678",
                "--pin",
                PIN,
            ]);
            assert!(init.output().unwrap().status.success());
        }
        Some(hsm)
    }

    fn with_tokens(&self, mut command: Command) -> Command {
        command.env("SOFTHSM2_CONF", self.place.path("softhsm2.conf"));
        command
    }

    fn uri(&self, key: &str) -> String {
        format!("pkcs11:{key}?module-path={}&pin-source=file:pin", self.module.display())
    }

    /// The command with this root.
    fn command(&self, root: &str, words: &[&str]) -> Command {
        let mut command = self.with_tokens(self.place.command(words));
        command.env("DEKSEAL_ROOT", root);
        command
    }

    fn does(&self, root: &str, words: &[&str]) -> String {
        String::from_utf8(succeeds(&mut self.command(root, words))).unwrap()
    }

    /// Runs `in_token` in a process that has the settings of SoftHSM2.
    fn in_token(&self, key: &str) -> String {
        let test = std::env::current_exe().unwrap();
        let mut child = self.with_tokens(Command::new(test));
        child.args(["--ignored", "--exact", "--nocapture", "pkcs11::in_token"]);
        child.env("MODULE", &self.module).env("KEY", key);
        String::from_utf8(child.output().unwrap().stdout).unwrap()
    }
}

/// Imports the key in the variable KEY into the token `prod`, or prints the attributes of the key there.
#[test]
#[ignore = "other tests run it with the settings that it needs"]
fn in_token() {
    let library = Pkcs11::new(std::env::var_os("MODULE").unwrap()).unwrap();
    let threads = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    library.initialize(threads).unwrap();
    let mut slots = library.get_slots_with_token().unwrap().into_iter();
    let prod = slots.find(|slot| library.get_token_info(*slot).unwrap().label() == "prod");
    let session = library.open_rw_session(prod.unwrap()).unwrap();
    session.login(UserType::User, Some(&AuthPin::from(PIN))).unwrap();
    let key = hex::decode(std::env::var("KEY").unwrap()).unwrap();
    if key.is_empty() {
        let types = [
            AttributeType::Sensitive,
            AttributeType::NeverExtractable,
            AttributeType::Private,
            AttributeType::Sign,
            AttributeType::Verify,
            AttributeType::Encrypt,
            AttributeType::Wrap,
            AttributeType::Derive,
        ];
        for object in session
            .find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)])
            .unwrap()
        {
            println!("{:?}", session.get_attributes(object, &types).unwrap());
        }
        return;
    }
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(true),
        Attribute::Sign(true),
        Attribute::Label(b"known".to_vec()),
        Attribute::Value(key),
    ];
    session.create_object(&template).unwrap();
}

#[test]
fn a_keyring_under_a_key_in_a_token_opens_after_a_restart() {
    let Some(hsm) = Hsm::new() else { return };
    let root = hsm.uri("token=prod;object=dekseal");
    let made = hsm.does("file:root", &["root", "new", &root]);
    assert_eq!(
        made,
        "made a key in the token: root 00000000-0000-0000-0000-00000000root version 0\n"
    );
    hsm.does(&root, &["keyring", "create"]);
    hsm.does(&root, &["key", "create", KEY_ID]);
    let sealed = hsm.does(&root, &["dek", "create", KEY_ID]);
    let opened = hsm.does(&root, &["dek", "open", "--hex", sealed.trim()]);
    assert_eq!(opened.trim().len(), 128);

    // The key cannot leave the token, and is good for nothing else.
    let attributes = "[Sensitive(true), NeverExtractable(true), Private(true), Sign(true), Verify(false), \
        Encrypt(false), Wrap(false), Derive(false)]";
    let listed = hsm.in_token("");
    assert!(listed.contains(attributes), "{listed}");

    // The PIN from the environment.
    let without = format!("pkcs11:object=dekseal;token=prod?module-path={}", hsm.module.display());
    succeeds(hsm.command(&without, &["key", "list"]).env("DEKSEAL_PIN", PIN));
    let module = "pkcs11:object=dekseal;token=prod?pin-source=pin";
    succeeds(
        hsm.command(module, &["key", "list"])
            .env("DEKSEAL_PKCS11_MODULE", &hsm.module),
    );
}

#[test]
fn each_fault_of_a_token_has_an_error_of_its_own() {
    let Some(hsm) = Hsm::new() else { return };
    let root = hsm.uri("token=prod;object=dekseal");
    for uri in [
        &root,
        &hsm.uri("token=prod;object=second"),
        &hsm.uri("token=other;object=dekseal"),
    ] {
        hsm.does("file:root", &["root", "new", uri]);
    }
    hsm.does(&root, &["keyring", "create"]);
    let refuses = |root: &str, says: &str| {
        let message = fails(&mut hsm.command(root, &["key", "list"]), 3);
        assert!(message.contains(says) && !message.contains(PIN), "{root}: {message}");
    };
    // Another token or another key is another root.
    refuses(&hsm.uri("token=other;object=dekseal"), "sealed under another root");
    refuses(&hsm.uri("token=prod;object=second"), "sealed under another root");
    refuses(&format!("{root}#version=1"), "sealed under another root");
    refuses(
        &hsm.uri("token=nowhere;object=dekseal"),
        "there is no token token=nowhere; the library has ",
    );
    refuses(
        &hsm.uri("token=prod;object=third"),
        "the token has no secret key object=third; ",
    );
    refuses(&hsm.uri("token=prod;id=%09"), "the token has no secret key id=%09; ");
    refuses(&hsm.uri("object=dekseal"), "2 tokens are named of any name");
    refuses(
        "pkcs11:object=dekseal?module-path=/nowhere.so&pin-source=pin",
        "/nowhere.so: ",
    );
    write_private(&hsm.place.path("pin"), "1111111");
    refuses(&root, "the PIN of token prod is wrong; correct it before you try again");
    fs::remove_file(hsm.place.path("pin")).unwrap();
    refuses(&root, "pin: No such file");
    let without = format!("pkcs11:token=prod;object=dekseal?module-path={}", hsm.module.display());
    let mut detached = Command::new("setsid");
    let plain = hsm.command(&without, &["key", "list"]);
    detached
        .arg("--wait")
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(hsm.place.path("."));
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            detached.env(name, value);
        }
    }
    let message = fails(detached.stdin(std::process::Stdio::null()), 3);
    assert!(message.contains("there is no PIN, and no terminal"), "{message}");
    let again = fails(
        hsm.command("file:root", &["root", "new", &without])
            .env("DEKSEAL_PIN", PIN),
        3,
    );
    assert!(again.contains("has a key dekseal already"), "{again}");
}

/// Python computes the material from the same key. A keyring that was made under that material opens under the token,
/// and the other way round.
#[test]
fn the_material_is_what_python_computes() {
    let Some(hsm) = Hsm::new() else { return };
    let key: Vec<u8> = (0..64).map(|at| at * 3 + 1).collect();
    let imported = hsm.in_token(&hex::encode(&key));
    assert!(imported.contains("1 passed"), "{imported}");
    let python = r#"
import hashlib, hmac, struct, sys
key, key_id, version = bytes.fromhex(sys.argv[1]), sys.argv[2], int(sys.argv[3])
message = b"dekseal/v2 root" + key_id.encode() + struct.pack(">I", version)
print(hmac.new(key, message, hashlib.sha512).hexdigest())
"#;
    let id = "00000000-0000-0000-0000-00000000abcd";
    for (version, id) in [(0, "00000000-0000-0000-0000-00000000root"), (7, id)] {
        let mut command = Command::new("python3");
        command.args(["-c", python, &hex::encode(&key), id, &version.to_string()]);
        let material = succeeds(&mut command);
        write_private(&hsm.place.path("material"), material);
        let settings = format!("#id={id},version={version}");
        let file = format!("file:material{settings}");
        let token = hsm.uri("token=prod;object=known") + &settings;
        for (makes, opens) in [(&file, &token), (&token, &file)] {
            let _ = fs::remove_file(hsm.place.path("keys"));
            hsm.does(makes, &["keyring", "create"]);
            hsm.does(makes, &["key", "create", KEY_ID]);
            assert!(hsm.does(opens, &["key", "list"]).contains(KEY_ID));
        }
    }
}
