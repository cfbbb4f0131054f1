"""An unmodified SLIM application on strings: reads one JSON command per line, answers with one JSON line.

Run by the tests beside it, with a Python that has slim-bindings 3.3.8.
"""

import asyncio
import datetime
import json
import os
import sys

import slim_bindings as slim

service = None
connection = None
app = None
sessions = {}
contexts = {}


def say(answer):
    # One write: the SDK logs to the same standard output from other threads.
    os.write(1, ("\n" + json.dumps(answer) + "\n").encode())


def seconds(number):
    return None if number is None else datetime.timedelta(seconds=number)


def name(text):
    return slim.Name(*text.split("/"))


def certificate(files):
    if "cert" not in files:
        return slim.TlsSource.NONE()
    return slim.TlsSource.FILE(cert=files["cert"], key=files["key"])


def serving(address, files):
    """What a node listens with: plain, or with a certificate, or asking for one too."""
    if files is None:
        return slim.new_insecure_server_config(address)
    config = slim.new_secure_server_config(address, certificate(files))
    if files["mutual"]:
        config.tls.client_ca = slim.CaSource.FILE(path=files["ca"])
    return config


def connecting(node, files):
    """How the application reaches its node: as that node listens."""
    if files is None:
        return slim.new_insecure_client_config(node)
    config = slim.new_secure_client_config(node)
    config.tls.ca_source = slim.CaSource.FILE(path=files["ca"])
    config.tls.include_system_ca_certs_pool = False
    config.tls.source = certificate(files)
    return config


COMMON = dict(audience=["slim"], issuer="slimline-tests", duration=seconds(3600))


def key(given, text):
    algorithm = getattr(slim.JwtAlgorithm, given["algorithm"])
    data = slim.JwtKeyData.DATA(value=text)
    return slim.JwtKeyConfig(algorithm=algorithm, format=slim.JwtKeyFormat.PEM, key=data)


def believing(given):
    trusting = slim.JwtKeyType.DECODING(key=key(given, given["public"]))
    verifier = slim.JwtAuth(key=trusting, subject=None, **COMMON)
    return slim.IdentityVerifierConfig.JWT(config=verifier)


def jwt(given):
    """Provider and verifier of JWT identities, the way the test describes them."""
    signing = slim.JwtKeyType.ENCODING(key=key(given, given["private"]))
    provider = slim.ClientJwtAuth(key=signing, subject=given["subject"], **COMMON)
    return slim.IdentityProviderConfig.JWT(config=provider), believing(given)


def static_jwt(given):
    """The same with a token that somebody else put into a file."""
    provider = slim.StaticJwtAuth(token_file=given["file"], duration=seconds(3600))
    return slim.IdentityProviderConfig.STATIC_JWT(config=provider), believing(given)


def spiffe(socket):
    """Whatever the Workload API at that socket says we are."""
    config = slim.SpireConfig(
        socket_path=f"unix:{socket}", target_spiffe_id=None, jwt_audiences=["slim"], trust_domains=[]
    )
    return slim.IdentityProviderConfig.SPIRE(config=config), slim.IdentityVerifierConfig.SPIRE(config=config)


def keep(session):
    id = session.session_id()
    if id in sessions:
        sessions[f"before {id}"] = sessions[id]  # whoever is invited anew gets a session of the same id
    sessions[id] = session
    return {"session": session.session_id(), "metadata": session.metadata()}


async def do(c):
    global service, connection, app
    session = sessions.get(c.get("session"))
    match c["do"]:
        case "serve":
            await service.run_server_async(serving(c["address"], c["tls"]))
        case "connect":
            connection = await service.connect_async(connecting(c["node"], c["tls"]))
            kinds = {"jwt": jwt, "static_jwt": static_jwt, "spiffe": spiffe}
            if kind := kinds.keys() & c.keys():
                kind = kind.pop()
                # In another thread: an identity may have to be asked for.
                app = await asyncio.to_thread(service.create_app, name(c["name"]), *kinds[kind](c[kind]))
            else:
                app = service.create_app_with_secret(name(c["name"]), c["secret"])
            await app.subscribe_async(name(c["name"]), connection)
            return {"id": app.id()}
        case "listen":
            return keep(await app.listen_for_session_async(seconds(c.get("timeout", 20))))
        case "create":
            kind = slim.SessionType.GROUP if c["group"] else slim.SessionType.POINT_TO_POINT
            mls = slim.MlsSettings(header_integrity_validation_percent=100, max_seen_control_message_ids_size=None)
            config = slim.SessionConfig(
                session_type=kind,
                max_retries=c.get("retries"),
                interval=seconds(c.get("interval")),
                metadata=c.get("metadata", {}),
                mls_settings=mls if c["mls"] else None,
            )
            return keep(await app.create_session_and_wait_async(config, name(c["to"])))
        case "publish":
            handle = await session.publish_async(c["text"].encode(), c.get("type"), c.get("metadata"))
            if c.get("wait", False):
                await handle.wait_async()
        case "receive":
            message = await session.get_message_async(seconds(c.get("timeout", 10)))
            contexts[c["session"]] = message.context
            return {
                "text": message.payload.decode(),
                "from": str(message.context.source_name),
                "type": message.context.payload_type,
                "metadata": message.context.metadata,
            }
        case "answer":
            await session.publish_to_and_wait_async(contexts[c["session"]], c["text"].encode(), None, None)
        case "invite":
            await session.invite_and_wait_async(name(c["name"]))
        case "remove":
            await session.remove_and_wait_async(name(c["name"]))
        case "participants":
            listed = await session.participants_list_async()
            offline = sum(p.status == slim.ParticipantStatus.OFFLINE for p in listed)
            return {"names": sorted(str(p.name) for p in listed), "offline": offline}
        case "away":
            await session.close_with_mode_and_wait_async(slim.CloseMode.SOFT)
        case "rejoin":
            await session.rejoin_and_wait_async()
        case "close":
            await app.delete_session_and_wait_async(session)
        case other:
            raise ValueError(f"unknown command {other}")
    return {}


async def main():
    global service
    loop = asyncio.get_running_loop()
    slim.uniffi_set_event_loop(loop)
    if "SHOW" in os.environ:
        tracing = slim.new_tracing_config_with("debug", False, False, ["slim_session=debug"])
        slim.initialize_with_configs(slim.new_runtime_config(), tracing, [slim.new_service_config()])
    else:
        slim.initialize_with_defaults()
    service = slim.get_global_service()
    say({"ready": slim.get_version()})
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        try:
            answer = await do(command)
        except Exception as error:  # the test decides what an error means
            answer = {"error": f"{type(error).__name__}: {error}"}
        say({"of": command["n"], **answer})


asyncio.run(main())
