# Signatures of releases, as `cosign sign-blob` writes them: base64 of an ECDSA P-256 signature over a file's SHA-256,
# in FILE.sig. Sourced by release/publish and release/verify; openssl makes and checks them.
# shellcheck shell=sh

# trusted_key FILE: refuses what is no key that a banger would trust.
trusted_key() {
    [ -f "$1" ] || die "there is no public key $1"
    grep -q -- '-----BEGIN PUBLIC KEY-----' "$1" ||
        die "$1 is a placeholder: there is no key yet, and nothing can be released without one" \
            "release/RELEASES.md tells how to make one"
    openssl pkey -pubin -in "$1" -noout -text 2>/dev/null | grep -q 'prime256v1' ||
        die "$1 is no public key of the kind that banger verifies (ECDSA, P-256)"
}

# vouched FILE KEY: whether FILE.sig is KEY's signature of FILE.
vouched() {
    [ -s "$1.sig" ] || return 1
    raw=$(mktemp)
    status=1
    if base64 -d "$1.sig" >"$raw" 2>/dev/null; then
        openssl dgst -sha256 -verify "$2" -signature "$raw" "$1" >/dev/null 2>&1 && status=0
    fi
    rm -f "$raw"
    return $status
}

# signing_way: whether there is a way to sign. The key is only ever named, and is nobody else's to read.
signing_way() {
    [ -z "${BANGER_SIGN_COMMAND:-}" ] || return 0
    private=${BANGER_SIGN_KEY:-}
    [ -n "$private" ] || die "nothing says how to sign" \
        "BANGER_SIGN_KEY=FILE                       a private key, PEM" \
        "BANGER_SIGN_COMMAND='cosign sign-blob ...' prints the signature of the file behind it"
    [ -f "$private" ] || die "there is no key $private"
    [ "$(stat -Lc %u "$private")" -eq "$(id -u)" ] || die "the key $private belongs to another account"
    case $(stat -Lc %a "$private") in
    *00) ;;
    *) die "others may read the key $private" "chmod 600 $private" ;;
    esac
}

# sign FILE KEY: writes FILE.sig, which KEY, the public one, must vouch for.
sign() {
    raw=$(mktemp)
    if [ -n "${BANGER_SIGN_COMMAND:-}" ]; then
        # shellcheck disable=SC2086  # a command and its first words
        $BANGER_SIGN_COMMAND "$1" >"$raw" || die "this has failed: $BANGER_SIGN_COMMAND $1"
        tr -d '\n' <"$raw" >"$1.sig"
    else
        openssl dgst -sha256 -sign "$BANGER_SIGN_KEY" -out "$raw" "$1" || die "openssl could not sign $1"
        base64 -w 0 "$raw" >"$1.sig"
    fi
    rm -f "$raw"
    vouched "$1" "$2" || die "the signature of $1 is not that of $2" "the private key and the public one are no pair"
}
