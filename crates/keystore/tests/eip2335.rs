//! The standard's test vectors, files that are hostile, and keystores made here.
#![allow(clippy::unwrap_used, missing_docs)]

use keystore::{Details, Kdf, Keystore, KeystoreError, Password};
use serde_json::{Value, json};

const SECRET: &str = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f";
const PASSWORD: &str = "𝔱𝔢𝔰𝔱𝔭𝔞𝔰𝔰𝔴𝔬𝔯𝔡🔑";

/// "Scrypt Test Vector" of EIP-2335.
fn scrypt() -> Value {
    json!({
        "crypto": {
            "kdf": {
                "function": "scrypt",
                "params": {
                    "dklen": 32, "n": 262144, "p": 1, "r": 8,
                    "salt": "d4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3"
                },
                "message": ""
            },
            "checksum": {
                "function": "sha256",
                "params": {},
                "message": "d2217fe5f3e9a1e34581ef8a78f7c9928e436d36dacc5e846690a5581e8ea484"
            },
            "cipher": {
                "function": "aes-128-ctr",
                "params": { "iv": "264daa3f303d7259501c93d997d84fe6" },
                "message": "06ae90d55fe0a6e9c5c3bc5b170827b2e5cce3929ed3f116c2811e6366dfe20f"
            }
        },
        "description": "This is a test keystore that uses scrypt to secure the secret.",
        "pubkey": "9612d7a727c9d0a22e185a1c768478dfe919cada9266988cb32359c11f2b7b27f4ae4040902382ae2910c15e2b420d07",
        "path": "m/12381/60/3141592653/589793238",
        "uuid": "1d85ae20-35c5-4611-98e8-aa14a633906f",
        "version": 4
    })
}

/// "PBKDF2 Test Vector" of EIP-2335.
fn pbkdf2() -> Value {
    json!({
        "crypto": {
            "kdf": {
                "function": "pbkdf2",
                "params": {
                    "dklen": 32, "c": 262144, "prf": "hmac-sha256",
                    "salt": "d4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3"
                },
                "message": ""
            },
            "checksum": {
                "function": "sha256",
                "params": {},
                "message": "8a9f5d9912ed7e75ea794bc5a89bca5f193721d30868ade6f73043c6ea6febf1"
            },
            "cipher": {
                "function": "aes-128-ctr",
                "params": { "iv": "264daa3f303d7259501c93d997d84fe6" },
                "message": "cee03fde2af33149775b7223e7845e4fb2c8ae1792e5f99fe9ecf474cc8c16ad"
            }
        },
        "description": "This is a test keystore that uses PBKDF2 to secure the secret.",
        "pubkey": "9612d7a727c9d0a22e185a1c768478dfe919cada9266988cb32359c11f2b7b27f4ae4040902382ae2910c15e2b420d07",
        "path": "m/12381/60/0/0",
        "uuid": "64625def-3331-4eea-ab6f-782f3ed16a83",
        "version": 4
    })
}

fn parse(value: &Value) -> Result<Keystore, KeystoreError> {
    Keystore::parse(value.to_string().as_bytes())
}

fn password(text: &str) -> Password {
    Password::new(text).unwrap()
}

/// Cheap parameters for tests that are not about them.
fn cheap() -> Kdf {
    Kdf::Pbkdf2 { c: 2, salt: vec![7; 32] }
}

#[test]
fn both_vectors_of_the_standard_decrypt_to_its_secret() {
    for (vector, path) in [(scrypt(), "m/12381/60/3141592653/589793238"), (pbkdf2(), "m/12381/60/0/0")] {
        let keystore = parse(&vector).unwrap();
        assert_eq!(hex::encode(&*keystore.decrypt(&password(PASSWORD)).unwrap()), SECRET);
        assert_eq!(keystore.decrypt(&password("testpassword")).unwrap_err(), KeystoreError::WrongPassword);
        assert_eq!(keystore.details().path, path);
        assert_eq!(keystore.uuid(), vector["uuid"]);
        let written: Value = serde_json::from_str(&keystore.to_json()).unwrap();
        assert_eq!(written, vector, "written as it was read");
    }
}

#[test]
fn what_is_encrypted_here_reads_back_and_never_repeats_its_randomness() {
    let details = Details {
        description: Some("a key".into()),
        public_key: Some("ab".repeat(48)),
        path: "m/12381/3600/0/0/0".into(),
    };
    let kdfs =
        [Kdf::Scrypt { n: 1024, r: 8, p: 2, salt: vec![1; 32] }, Kdf::Pbkdf2 { c: 1000, salt: vec![1; 32] }];
    for kdf in kdfs {
        let make = || Keystore::encrypt(&[5; 32], &password("pässwörd"), kdf.clone(), details.clone());
        let (one, two) = (make().unwrap(), make().unwrap());
        let read = Keystore::parse(one.to_json().as_bytes()).unwrap();
        assert_eq!(read, one);
        assert_eq!(read.details(), &details);
        assert_eq!(*read.decrypt(&password("pa\u{308}sswo\u{308}rd\n")).unwrap(), [5; 32]);
        assert_eq!(read.decrypt(&password("passwort")).unwrap_err(), KeystoreError::WrongPassword);
        let [one, two] = [one, two].map(|k| serde_json::from_str::<Value>(&k.to_json()).unwrap());
        assert_ne!(one["uuid"], two["uuid"]);
        assert_ne!(one["crypto"]["cipher"], two["crypto"]["cipher"]);
        let uuid = one["uuid"].as_str().unwrap();
        assert!(uuid.len() == 36 && uuid.as_bytes()[14] == b'4' && "89ab".contains(&uuid[19..20]), "{uuid}");
    }
    assert_ne!(Kdf::scrypt().unwrap(), Kdf::scrypt().unwrap());
    assert_ne!(Kdf::pbkdf2().unwrap(), Kdf::pbkdf2().unwrap());
}

#[test]
fn a_file_cannot_ask_for_more_memory_or_time_than_the_limits() {
    let scrypt_with = |n: u64, r: u64, p: u64| {
        let mut file = scrypt();
        let params = &mut file["crypto"]["kdf"]["params"];
        (params["n"], params["r"], params["p"]) = (n.into(), r.into(), p.into());
        parse(&file)
    };
    let memory = |n, r, p, bytes| KeystoreError::Memory { n, r, p, bytes, limit: 512 << 20 };
    assert_eq!(scrypt_with(1 << 20, 8, 1).unwrap_err(), memory(1 << 20, 8, 1, ((1 << 20) + 2) * 1024));
    assert_eq!(scrypt_with(2, 1 << 40, 1).unwrap_err(), memory(2, 1 << 40, 1, 4 * (1 << 47)));
    assert_eq!(
        scrypt_with(1 << 63, u64::MAX, u64::MAX).unwrap_err(),
        memory(1 << 63, u64::MAX, u64::MAX, u64::MAX)
    );
    assert_eq!(scrypt_with(2, 1, 1 << 40).unwrap_err(), memory(2, 1, 1 << 40, ((1 << 40) + 3) * 128));
    let work = KeystoreError::Work { n: 1 << 18, r: 8, p: 9, work: 9 << 21, limit: 1 << 24 };
    assert_eq!(scrypt_with(1 << 18, 8, 9).unwrap_err(), work);
    for (n, r, p) in [(0, 8, 1), (1, 8, 1), (3, 8, 1), (262_143, 8, 1), (1024, 0, 1), (1024, 8, 0)] {
        assert!(
            matches!(scrypt_with(n, r, p), Err(KeystoreError::Parameter { kdf: "scrypt", .. })),
            "{n} {r} {p}"
        );
    }
    // What the function itself does not admit is refused before a password is asked for.
    let expected = "below 2^16 for r=1".to_owned();
    let error = KeystoreError::Parameter { kdf: "scrypt", name: "n", found: 1 << 16, expected };
    assert_eq!(scrypt_with(1 << 16, 1, 1).unwrap_err(), error);
    assert!(scrypt_with(1 << 15, 1, 1).is_ok());
    for c in [0, 10_000_001, u64::MAX] {
        let mut file = pbkdf2();
        file["crypto"]["kdf"]["params"]["c"] = c.into();
        let expected = "from 1 to 10000000".to_owned();
        let error = KeystoreError::Parameter { kdf: "pbkdf2", name: "c", found: c, expected };
        assert_eq!(parse(&file).unwrap_err(), error);
    }
    let file = "x".repeat(keystore::FILE_BYTES_MAX + 1);
    let error = KeystoreError::FileTooLarge { bytes: 65_537, limit: 65_536 };
    assert_eq!(Keystore::parse(file.as_bytes()).unwrap_err(), error);
}

#[test]
fn every_other_deviation_is_refused_by_name() {
    let set = |path: &str, value: Value| {
        let mut file = pbkdf2();
        *file.pointer_mut(path).unwrap() = value;
        parse(&file).unwrap_err().to_string()
    };
    for (path, value, names) in [
        ("/version", json!(3), "version 3"),
        ("/version", json!("4"), "not an EIP-2335"),
        ("/crypto/kdf/function", json!("argon2"), "argon2"),
        ("/crypto/kdf/params/prf", json!("hmac-sha1"), "hmac-sha1"),
        ("/crypto/kdf/params/dklen", json!(64), "dklen is 64"),
        ("/crypto/kdf/params/c", Value::Null, "c: missing"),
        ("/crypto/kdf/params/c", json!(-1), "not an EIP-2335"),
        ("/crypto/kdf/params/salt", json!("zz"), "kdf.params.salt"),
        ("/crypto/kdf/params/salt", json!("00".repeat(1025)), "1025 bytes"),
        ("/crypto/checksum/function", json!("sha1"), "sha1"),
        ("/crypto/checksum/message", json!("00"), "1 bytes instead of 32"),
        ("/crypto/cipher/function", json!("aes-256-gcm"), "aes-256-gcm"),
        ("/crypto/cipher/params/iv", json!("00"), "1 bytes instead of 16"),
        ("/crypto/cipher/message", json!(""), "0 bytes"),
        ("/crypto/cipher/message", json!("00".repeat(1025)), "1025 bytes"),
        ("/crypto/cipher/message", json!("00".repeat(4000)), "8000 digits"),
        ("/crypto", json!([]), "not an EIP-2335"),
    ] {
        let text = set(path, value.clone());
        assert!(text.contains(names), "{path} = {value}: {text}");
    }
    assert!(matches!(parse(&json!({})), Err(KeystoreError::Json(_))));
    let empty = Keystore::encrypt(&[], &password("p"), cheap(), Details::default()).unwrap_err();
    assert_eq!(empty, KeystoreError::SecretLength { bytes: 0, limit: 1024 });
}

#[test]
fn a_changed_ciphertext_or_checksum_never_decrypts() {
    let keystore = Keystore::encrypt(&[5; 32], &password("p"), cheap(), Details::default()).unwrap();
    let file: Value = serde_json::from_str(&keystore.to_json()).unwrap();
    for path in ["/crypto/cipher/message", "/crypto/checksum/message"] {
        for at in 0..64 {
            let mut file = file.clone();
            let digits = file.pointer(path).unwrap().as_str().unwrap().to_owned();
            let other = if &digits[at..=at] == "0" { "1" } else { "0" };
            *file.pointer_mut(path).unwrap() =
                json!(format!("{}{other}{}", &digits[..at], &digits[at + 1..]));
            assert_eq!(
                parse(&file).unwrap().decrypt(&password("p")).unwrap_err(),
                KeystoreError::WrongPassword
            );
        }
    }
}

#[test]
fn a_probe_tells_keystores_from_plain_key_files() {
    assert!(Keystore::looks_like_one(scrypt().to_string().as_bytes()));
    assert!(!Keystore::looks_like_one(br#"{"secret_key": "0x00", "public_key": "0x00"}"#));
    assert!(!Keystore::looks_like_one(b"no JSON"));
}
