//! Names made from the pod's: `${pod.namespace}/${pod.name}`.

use node::{Error, Kind, Result};

use super::{Pod, nearest, quoted};

/// Every variable that a template may have.
pub const VARIABLES: [&str; 5] = ["pod.namespace", "pod.name", "pod.uid", "pod.serviceAccount", "volume"];

/// Exchanges each `${NAME}` in `text`; `$` before anything else stands for itself. A value has to
/// look like one of Kubernetes' names: an option that pretends to be the kubelet's shall add no `/`, no
/// `..` and no comma.
pub fn expand(text: &str, pod: &Pod, volume: &str) -> Result<String> {
    check(text, pod, volume)
        .map_err(|why| Error::caused(Kind::Config, format!("expand {}", quoted(text)), why))
}

/// The same with the plain reason, for a list of problems.
pub fn check(text: &str, pod: &Pod, volume: &str) -> std::result::Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').ok_or("has a `${` without its `}`")?;
        out.push_str(before);
        out.push_str(value(name, pod, volume)?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of the variable `name`, such as `pod.name`.
pub fn value<'p>(name: &str, pod: &'p Pod, volume: &'p str) -> std::result::Result<&'p str, String> {
    let value = match name {
        "pod.namespace" => pod.namespace.as_str(),
        "pod.name" => pod.name.as_str(),
        "pod.uid" => pod.uid.as_str(),
        "pod.serviceAccount" => pod.service_account.as_str(),
        "volume" => volume,
        _ => return Err(unknown(name)),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    let fit = value.bytes().all(plain) && !matches!(value, "" | "." | "..") && !value.starts_with('-');
    if fit { Ok(value) } else { Err(format!("needs ${{{name}}}, and the kubelet gave no usable one")) }
}

fn unknown(name: &str) -> String {
    let all = VARIABLES.map(|known| format!("${{{known}}}")).join(", ");
    let meant = nearest(name, VARIABLES).map(|near| format!("did you mean ${{{near}}}? "));
    format!("has the unknown variable {}; {}known are {all}", quoted(name), meant.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pod() -> Pod {
        Pod {
            name: "web-0".into(),
            namespace: "shop".into(),
            uid: "u-1".into(),
            service_account: "sa".into(),
        }
    }

    #[test]
    fn variables_are_exchanged_and_the_rest_stays() {
        let table = [
            ("", ""),
            ("plain", "plain"),
            ("${pod.namespace}/${pod.name}", "shop/web-0"),
            ("a-${volume}-b${pod.uid}${pod.serviceAccount}", "a-data-bu-1sa"),
            ("$HOME $ {x} $$", "$HOME $ {x} $$"),
            ("$${volume}", "$data"),
        ];
        for (text, expect) in table {
            assert_eq!(expand(text, &pod(), "data").unwrap(), expect, "{text}");
        }
    }

    #[test]
    fn an_unknown_or_unfit_variable_is_refused() {
        let table = [
            ("${pod.namespce}", "did you mean ${pod.namespace}?"),
            ("${HOME}", "known are ${pod.namespace}, ${pod.name}"),
            ("${}", "known are"),
            ("a${volume", "without its `}`"),
            ("${volume}", "no usable one"),
        ];
        for (text, expect) in table {
            let error = expand(text, &pod(), "../..").unwrap_err();
            assert!(error.chain().contains(expect), "{text}: {}", error.chain());
        }
        assert!(expand("${pod.uid}", &Pod::default(), "v").is_err());
    }

    proptest! {
        #[test]
        fn a_value_never_adds_a_component(volume in "[a./]{0,6}|\\PC{0,8}") {
            if let Ok(text) = expand("x/${volume}/y", &pod(), &volume) {
                prop_assert_eq!(text.split('/').count(), 3);
                prop_assert!(!text.contains([',', ' ', '\\']) && !volume.starts_with('-'));
            }
        }

        #[test]
        fn junk_is_never_more_than_an_error(text in "[${}a.]{0,20}|\\PC{0,20}") {
            let _ = expand(&text, &pod(), "data");
        }
    }
}
