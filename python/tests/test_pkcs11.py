"""A root in a PKCS#11 token, SoftHSM2, by the package python-pkcs11."""

from __future__ import annotations

import hmac
import os
import pathlib
import subprocess

import dekseal
import pkcs11
import pytest
from conftest import CONTEXT, Token


def root_of(token: Token, label: str, pin: str | None = None) -> dekseal.Root:
    def hmac_sha512(message: bytes) -> bytes:
        with pkcs11.lib(token.module).get_token(token_label="prod").open(user_pin=pin or token.pin) as session:
            key = session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=label)
            mac: bytes = key.sign(message, mechanism=pkcs11.Mechanism.SHA512_HMAC)
            return mac

    return dekseal.Root.from_hmac(hmac_sha512)


def test_the_command_and_the_package_have_the_same_root(
    token: Token, command: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    uri = f"pkcs11:token=prod;object=shared?module-path={token.module}&pin-source=file:{token.pin_file}"
    keyring = tmp_path / "keyring.json"
    environment = {**os.environ, "DEKSEAL_KEYRING": f"file:{keyring}", "DEKSEAL_ROOT": uri}

    def runs(*words: str, data: bytes = b"") -> bytes:
        ran = subprocess.run([command, *words], env=environment, input=data, capture_output=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    runs("root", "new", uri)
    runs("keyring", "create")
    key_id = runs("key", "create").decode().split()[0]
    words = [f"--context={key}={value}" for key, value in CONTEXT.items()]
    sealed = runs("encrypt", "--key", key_id, *words, data=b"attack at dawn")

    engine = dekseal.Engine(dekseal.FileKeyring.open(keyring, root_of(token, "shared")))
    assert engine.decrypt(key_id, CONTEXT, sealed) == b"attack at dawn"
    engine.keyring.rotate(key_id)
    assert runs("decrypt", *words, data=engine.encrypt(key_id, CONTEXT, b"retreat")) == b"retreat"


def test_the_material_is_that_of_the_format(token: Token, tmp_path: pathlib.Path) -> None:
    k = bytes(range(64))
    with pkcs11.lib(token.module).get_token(token_label="prod").open(rw=True, user_pin=token.pin) as session:
        session.create_object(
            {
                pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.GENERIC_SECRET,
                pkcs11.Attribute.VALUE: k,
                pkcs11.Attribute.LABEL: "known",
                pkcs11.Attribute.SIGN: True,
                # Without this it is gone with the session.
                pkcs11.Attribute.TOKEN: True,
            }
        )
    # FORMAT.md D7.
    message = b"dekseal/v2 root" + b"00000000-0000-0000-0000-00000000root" + (0).to_bytes(4, "big")
    same = dekseal.Root.from_bytes(hmac.digest(k, message, "sha512"))
    path = tmp_path / "keyring.json"
    dekseal.FileKeyring.create(path, same)
    dekseal.FileKeyring.open(path, root_of(token, "known"))


def test_errors_of_the_token_stay_as_they_are(token: Token) -> None:
    with pytest.raises(pkcs11.exceptions.PinIncorrect):
        root_of(token, "known", pin="0000000")
    with pytest.raises(pkcs11.exceptions.NoSuchKey):
        root_of(token, "nobody made this key")
