use std::path::Path;
use std::time::Instant;

use super::*;
use crate::options::Options;
use crate::policy::Policy;
use crate::target::Target;

const POLICY: &str = "backends: {overlay: {lower: [{path: /srv/layers}, {path: /srv/own, namespaces: [web]}], \
                      upper: [{path: /srv/upper, create: true}], maxSize: 16Mi}}";

/// What comes of these options: the layers' wish, or what is wrong.
fn wish(options: &[(&str, &str)]) -> std::result::Result<Overlay, String> {
    let pod =
        [("pod.namespace", "ns"), ("pod.name", "web-0"), ("pvOrVolumeName", "data"), ("readwrite", "rw")];
    let pod = pod.map(|(key, value)| (format!("kubernetes.io/{key}"), value));
    let own = options.iter().map(|(key, value)| ((*key).to_owned(), *value));
    let map: serde_json::Map<_, _> = pod.into_iter().chain(own).map(|(k, v)| (k, v.into())).collect();
    let options = Options::parse(&serde_json::Value::Object(map).to_string()).unwrap();
    let policy = Policy::parse(POLICY).unwrap();
    let target =
        Target::parse(Path::new("/k/pods/u/volumes/nodeplug~overlay/data"), Path::new("/k")).unwrap();
    let (pod, mut reader) = (options.pod(), options.reader());
    let common = Common::read(&options, &pod, &policy, &mut reader, Instant::now());
    let asked = Asked { options: &options, pod, target: &target, policy: &policy, common };
    let wish = overlay(&asked, &mut reader).map_err(|e| e.chain())?;
    reader.finish().map_err(|e| e.causes())?;
    Ok(wish)
}

/// The lines of the steps, where every lower layer is a folder and the upper one is missing.
fn lines(options: &[(&str, &str)]) -> Vec<String> {
    let overlay = wish(options).unwrap();
    let lower = overlay.lower.iter().enumerate();
    let lower = lower.map(|(number, place)| Lower::Folder { number, path: place.path() }).collect();
    let upper = matches!(overlay.upper, Above::Disk { .. }).then(|| ("key".to_owned(), true));
    let found = Found { overlay, lower, upper };
    found.steps().iter().map(ToString::to_string).collect()
}

#[test]
fn an_overlay_is_its_layers_and_then_itself() {
    let memory = lines(&[("lower", "/srv/layers/app, /srv/layers/b:ase"), ("size", "1Mi")]);
    let expect = [
        "take the folder `/srv/layers/app` as a lower layer",
        "take the folder `/srv/layers/b:ase` as a lower layer",
        "make a `tmpfs` of `tmpfs` with `size=1048576,mode=0700`",
        "lay it over the lower layers",
    ];
    assert_eq!(memory, expect);
    let disk = lines(&[
        ("lower", "/srv/layers/app\n/srv/layers\n"),
        ("upper", "/srv/upper/${pod.namespace}/${volume}"),
        ("redirectDir", "true"),
        ("mountOptions", "xino=off,noexec"),
        ("mode", "0750"),
        ("gid", "7"),
        ("kubernetes.io/mounterArgs.FsGroup", "1000"),
    ]);
    let expect = [
        "take the folder `/srv/layers/app` as a lower layer",
        "take the folder `/srv/layers` as a lower layer",
        "make the folder `/srv/upper/ns/data` for the upper layer",
        "lay it over the lower layers with `index=on,redirect_dir=on,xino=off`, mode 0750, group 7",
        "give the group 1000 its root folder",
    ];
    assert_eq!(disk, expect);
    let last = |options: &[(&str, &str)]| lines(options).pop().unwrap();
    let lower = ("lower", "/srv/layers/a");
    assert_eq!(last(&[lower, ("volatile", "true")]), "lay it over the lower layers with `volatile`");
    assert_eq!(
        last(&[lower, ("upper", "/srv/upper/a"), ("index", "false")]),
        "lay it over the lower layers with `index=off`"
    );
}

#[test]
fn layers_that_are_not_allowed_or_contradict_each_other_are_refused() {
    let many = vec!["/srv/layers/a"; 33].join(",");
    let lower = ("lower", "/srv/layers/a");
    let table: [(&[(&str, &str)], &str); 14] = [
        (&[], "`lower` is missing; write the folders or images below"),
        (&[("lower", " \n")], "`lower` is missing"),
        (&[("lower", "/srv/layers/a,,b")], "`lower` has an empty element"),
        (&[("lower", "/srv/layers/a\t/b")], "`lower` has an empty element or a control character"),
        (&[("lower", &many)], "names 33 layers; write at most 32"),
        (&[("lower", "/etc")], "which no policy allows"),
        (&[("lower", "/srv/own/a")], "the root `/srv/own` is not for the namespace `ns`"),
        (&[("lower", "/srv/layers/../x")], "it has the component `..`"),
        (&[lower, ("upper", "/srv/layers/b")], "lists no root that contains it"),
        (&[lower, ("upper", "/srv/upper")], "`upper` is a whole root of the policy"),
        (&[lower, ("size", "17Mi")], "allows at most 16Mi"),
        (&[lower, ("upper", "/srv/upper/a"), ("size", "1Mi")], "`size` is that of an upper layer in memory"),
        (
            &[lower, ("upper", "/srv/upper/a"), ("volatile", "true")],
            "`volatile` contradicts an `upper` on disk",
        ),
        (&[lower, ("mountOptions", "upperdir=/etc")], "upperdir"),
    ];
    for (options, expect) in table {
        let why = wish(options).unwrap_err();
        assert!(why.contains(expect), "{options:?}: {why}");
    }
}
