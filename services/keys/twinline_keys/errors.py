"""What callers of this service may have to deal with, by reason."""

from twinline_kit.errors import AlreadyExists, FailedPrecondition, Internal, InvalidArgument, NotFound, Unauthenticated


class KeyExists(AlreadyExists):
    """Another cloud key has the name."""

    reason = "KEY_EXISTS"


class KeyNotFound(NotFound):
    """No cloud key has the name or id."""

    reason = "KEY_NOT_FOUND"


class KeyMalformed(InvalidArgument):
    """What was given is not the half of a key that is needed, or not in a form that can be read."""

    reason = "KEY_MALFORMED"


class KeyMaterialMismatch(FailedPrecondition):
    """The private half given belongs to another key."""

    reason = "KEY_MATERIAL_MISMATCH"


class KeyMaterialMissing(FailedPrecondition):
    """Only the public half or fingerprint of the key is stored here."""

    reason = "KEY_MATERIAL_MISSING"


class SignatureAlgorithmUnsupported(InvalidArgument):
    """The key cannot sign with the algorithm."""

    reason = "SIGNATURE_ALGORITHM_UNSUPPORTED"


class CredentialNotFound(NotFound):
    """No credential has the name."""

    reason = "CREDENTIAL_NOT_FOUND"


class TokenUnknown(Unauthenticated):
    """Nobody has the token."""

    reason = "TOKEN_UNKNOWN"


class SealingKeyWrong(FailedPrecondition):
    """The key-encryption key is not the one that the stored records were sealed with."""

    reason = "SEALING_KEY_WRONG"


class ClearMaterialStored(FailedPrecondition):
    """A stored record that must be sealed is not."""

    reason = "CLEAR_MATERIAL_STORED"


class SealBroken(Internal):
    """A sealed record was altered, or belongs to something else."""

    reason = "SEAL_BROKEN"
