//! `dekseal keyring change-root`.

use std::ops::ControlFlow;

use dekseal::{FileKeyring, StoreKeyring, store::KeyStore};
use serde_json::json;

use crate::{
    confirm::Yes,
    failure::Failure,
    globals::Globals,
    keyring::{Address, AnyKeyring, for_store, open_file},
    output,
    root::Root,
};

/// The documents of a pass.
#[derive(Default)]
struct Pass {
    changed: u64,
    present: u64,
    faults: Vec<String>,
}

pub(super) fn change(address: &Address, roots: &[Root], yes: Yes, globals: &Globals) -> Result<(), Failure> {
    let [new, _, ..] = roots else {
        return Err(Failure::usage(
            "pass the new root with --root, and the old one with --reading-root",
        ));
    };
    let ask = || {
        yes.or_typed(
            &format!("{address} will be sealed under {new}. Processes that do not have this root cannot read it."),
            "change-root",
        )
    };
    let pass = match address {
        Address::File(path) => match FileKeyring::open(path, new.cmk()?) {
            Ok(_) => Pass {
                present: 1,
                ..Pass::default()
            },
            Err(_) => {
                let keyring = open_file(path, roots)?;
                ask()?;
                keyring.change_root(new.cmk()?)?;
                Pass {
                    changed: 1,
                    ..Pass::default()
                }
            }
        },
        _ => {
            ask()?;
            let keyring = AnyKeyring::open(address, roots)?;
            for_store!(&keyring, _file => Pass::default(), keyring => reseal(keyring)?)
        }
    };
    let Pass {
        changed,
        present,
        faults,
    } = pass;
    let value = json!({ "changed": changed, "unchanged": present, "faults": faults });
    output::print(globals.json, &value, |out| {
        for fault in &faults {
            writeln!(out, "{fault}")?;
        }
        writeln!(out, "sealed under {new}: {changed} now, {present} before")
    })?;
    if faults.is_empty() {
        return Ok(());
    }
    Err(Failure::key(format!(
        "{} keys are not under the new root; keep the old root, and run the command again",
        faults.len()
    )))
}

fn reseal<S: KeyStore>(keyring: &StoreKeyring<S>) -> Result<Pass, Failure> {
    let mut faults = Vec::new();
    let pass = keyring.reseal(None, |key_id, result| {
        if let Err(error) = result {
            faults.push(format!("{key_id}: {error}"));
        }
        ControlFlow::Continue(())
    })?;
    Ok(Pass {
        changed: pass.resealed,
        present: pass.present,
        faults,
    })
}
