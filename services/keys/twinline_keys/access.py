"""Who may call what. A method that is not here is refused."""

from twinline_kit.auth import Access, Grant

_CLOUD_KEYS = "/twinline.keys.v1.CloudKeyService"
_CREDENTIALS = "/twinline.keys.v1.CredentialService"
_PEOPLE = "/twinline.keys.v1.PeopleService"
_CERTIFICATES = "/twinline.keys.v1.CertificateService"

CLOUD_KEYS: Access = {
    f"{_CLOUD_KEYS}/CreateCloudKey": frozenset({Grant.ADMIN}),
    f"{_CLOUD_KEYS}/ImportCloudKey": frozenset({Grant.ADMIN}),
    f"{_CLOUD_KEYS}/UploadCloudKeyMaterial": frozenset({Grant.ADMIN}),
    f"{_CLOUD_KEYS}/GetCloudKey": frozenset({Grant.OBSERVER, Grant.LAUNCHER, Grant.EXECUTOR}),
    f"{_CLOUD_KEYS}/ListCloudKeys": frozenset({Grant.OBSERVER}),
    f"{_CLOUD_KEYS}/DeleteCloudKey": frozenset({Grant.ADMIN}),
    # Not even an admin: what is signed here opens a connection to a host.
    f"{_CLOUD_KEYS}/Sign": frozenset({Grant.EXECUTOR}),
}

CREDENTIALS: Access = {
    f"{_CREDENTIALS}/SetCredential": frozenset({Grant.ADMIN}),
    # Services read names, to tell before a launch or a run which inputs are missing.
    f"{_CREDENTIALS}/ListCredentials": frozenset({Grant.OBSERVER, Grant.LAUNCHER, Grant.EXECUTOR}),
    f"{_CREDENTIALS}/DeleteCredential": frozenset({Grant.ADMIN}),
    f"{_CREDENTIALS}/OpenCredentials": frozenset({Grant.EXECUTOR}),
}

PEOPLE: Access = {
    f"{_PEOPLE}/Authenticate": frozenset({Grant.LAUNCHER, Grant.EXECUTOR, Grant.AGENT_GATEWAY}),
    f"{_PEOPLE}/WhoAmI": frozenset({Grant.OBSERVER}),
}

CERTIFICATES: Access = {
    f"{_CERTIFICATES}/SignAgentCertificate": frozenset({Grant.AGENT_GATEWAY}),
}

ACCESS: Access = {**CLOUD_KEYS, **CREDENTIALS, **PEOPLE, **CERTIFICATES}
