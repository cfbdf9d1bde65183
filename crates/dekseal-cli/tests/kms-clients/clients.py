"""Tries two published clients of the KMS API with `dekseal serve`. Argument: the program."""

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.http_handler import HttpHandler
from huaweicloudsdkkms.v2 import (
    CreateDatakeyRequest,
    CreateDatakeyRequestBody,
    CreateDatakeyWithoutPlaintextRequest,
    DecryptDatakeyRequest,
    DecryptDatakeyRequestBody,
    EncryptDatakeyRequest,
    EncryptDatakeyRequestBody,
    KmsClient,
)
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token
from openstack.connection import Connection
from openstack.exceptions import HttpException, SDKException
from otcextensions import sdk

KEY = "0d0466b0-e727-4d9c-b35d-f84bb474a37f"
OTHER = "25abe69f-ae10-44cd-bc87-1bda1de3b7d7"
TOKEN = "correct-horse-battery-staple"


def send_token(request, **_):
    """Adds the token to a request. The SDK signs requests, which takes the header `Authorization`."""
    request.header_params["X-Auth-Token"] = TOKEN


class CreateInContext(CreateDatakeyRequestBody):
    """The fields of the request, with the encryption context, which this version of the SDK leaves out."""

    openapi_types = {**CreateDatakeyRequestBody.openapi_types, "encryption_context": "dict(str, str)"}
    attribute_map = {**CreateDatakeyRequestBody.attribute_map, "encryption_context": "encryption_context"}
    encryption_context = None


class DecryptInContext(DecryptDatakeyRequestBody):
    openapi_types = {**DecryptDatakeyRequestBody.openapi_types, "encryption_context": "dict(str, str)"}
    attribute_map = {**DecryptDatakeyRequestBody.attribute_map, "encryption_context": "encryption_context"}
    encryption_context = None


def in_context(body, context):
    body.encryption_context = context
    return body


def refused(error, call):
    """Makes a call that must fail, and returns the exception."""
    try:
        call()
    except error as refusal:
        return refusal
    raise AssertionError("the call was not refused")


def huawei(address):
    def client(handler):
        builder = KmsClient.new_builder().with_credentials(BasicCredentials("access", "secret", "project"))
        return builder.with_http_handler(handler).with_endpoint(f"http://{address}").build()

    kms = client(HttpHandler().add_request_handler(send_token))
    body = CreateDatakeyRequestBody(key_id=KEY, datakey_length="512")
    created = kms.create_datakey(CreateDatakeyRequest(body=body))
    assert len(created.plain_text) == 128 and len(created.cipher_text) == 376 and created.key_id == KEY

    alone = kms.create_datakey_without_plaintext(CreateDatakeyWithoutPlaintextRequest(body=body))
    body = DecryptDatakeyRequestBody(key_id=KEY, cipher_text=alone.cipher_text, datakey_cipher_length="64")
    opened = kms.decrypt_datakey(DecryptDatakeyRequest(body=body))
    assert hashlib.sha256(bytes.fromhex(opened.data_key)).hexdigest().upper() == opened.datakey_dgst

    body = DecryptDatakeyRequestBody(key_id=KEY, cipher_text=created.cipher_text, datakey_cipher_length="64")
    opened = kms.decrypt_datakey(DecryptDatakeyRequest(body=body))
    assert (opened.data_key, opened.datakey_length) == (created.plain_text, "64")

    digits = opened.data_key + opened.datakey_dgst
    body = EncryptDatakeyRequestBody(key_id=KEY, plain_text=digits, datakey_plain_length="64")
    sealed = kms.encrypt_datakey(EncryptDatakeyRequest(body=body))
    assert (sealed.cipher_text, sealed.datakey_length) == (created.cipher_text, "64")

    body = in_context(CreateInContext(key_id=KEY, datakey_length="512"), {"tenant": "42"})
    bound = kms.create_datakey(CreateDatakeyRequest(body=body))
    body = DecryptInContext(key_id=KEY, cipher_text=bound.cipher_text, datakey_cipher_length="64")
    opened = kms.decrypt_datakey(DecryptDatakeyRequest(body=in_context(body, {"tenant": "42"})))
    assert opened.data_key == bound.plain_text
    call = lambda: kms.decrypt_datakey(DecryptDatakeyRequest(body=in_context(body, {"tenant": "43"})))
    error = refused(ClientRequestException, call)
    assert (error.status_code, error.error_code) == (400, "KMS.2203"), error

    body = CreateDatakeyRequestBody(key_id=OTHER, datakey_length="512")
    error = refused(ClientRequestException, lambda: kms.create_datakey(CreateDatakeyRequest(body=body)))
    assert (error.status_code, error.error_code) == (404, "KMS.0207"), error
    # What this version of the SDK has instead of a context is refused, since it would bind nothing.
    body = CreateDatakeyRequestBody(key_id=KEY, datakey_length="512", additional_authenticated_data="tenant=42")
    error = refused(ClientRequestException, lambda: kms.create_datakey(CreateDatakeyRequest(body=body)))
    assert (error.status_code, error.error_code) == (400, "KMS.0308"), error

    signed = client(HttpHandler())
    body = CreateDatakeyRequestBody(key_id=KEY, datakey_length="512")
    error = refused(ClientRequestException, lambda: signed.create_datakey(CreateDatakeyRequest(body=body)))
    assert (error.status_code, error.error_code) == (403, "KMS.0306"), error


def openstack(address):
    endpoint = f"http://{address}/v1.0/project"

    def client(token):
        connection = Connection(session=Session(auth=Token(endpoint, token)), kms_endpoint_override=endpoint)
        sdk.register_single_service(connection, "kms", "project")
        return connection.kms

    kms = client(TOKEN)
    context = {"tenant": "42"}
    created = kms.create_datakey(KEY, datakey_length="512", encryption_context=context)
    assert len(created.plain_text) == 128 and len(created.cipher_text) == 376

    created.datakey_cipher_length = 64
    plain_text = created.plain_text
    assert created.decrypt(kms).plain_text == plain_text
    created.encryption_context = {"tenant": "43"}
    error = refused(SDKException, lambda: created.decrypt(kms))
    assert "KMS.2203" in str(error), error

    alone = kms.create_datakey_wo_plain(KEY, datakey_length="512")
    opened = kms.decrypt_datakey(KEY, alone.cipher_text, 64)
    assert len(opened.plain_text) == 128
    opened.cipher_text = None
    assert kms.encrypt_datakey(opened).cipher_text == alone.cipher_text

    error = refused(HttpException, lambda: kms.create_datakey(OTHER, datakey_length="512"))
    assert error.status_code == 404 and "KMS.0207" in error.response.text, error
    error = refused(HttpException, lambda: client("wrong").create_datakey(KEY, datakey_length="512"))
    assert error.status_code == 403 and "KMS.0306" in error.response.text, error


def main():
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        for name, text in [("root", os.urandom(64).hex()), ("token", TOKEN)]:
            (place / name).write_text(text)
            (place / name).chmod(0o600)
        environment = {"DEKSEAL_KEYRING": "file:keys", "DEKSEAL_ROOT": "file:root"}
        for words in [["keyring", "create"], ["key", "create", KEY]]:
            subprocess.run([program, *words], cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
        words = ["serve", "--listen", "127.0.0.1:0", "--token-file", "token"]
        server = subprocess.Popen([program, *words], cwd=place, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            address = server.stdout.readline().strip().removeprefix("listening on ")
            for name, client in [("huaweicloudsdkkms", huawei), ("otcextensions", openstack)]:
                client(address)
                print(f"{name}: every call was answered as it should be")
        finally:
            server.terminate()
            server.wait()


main()
