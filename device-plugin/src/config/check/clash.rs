//! What two resources both claim. A container may have devices of both, and the kubelet then takes one of the
//! two values, by chance.

use std::collections::BTreeMap;

use crate::allocate::template;
use crate::cdi;
use crate::config::Resource;

/// Resources whose CDI specifications would be one file.
pub(super) fn kinds(resources: &[Resource]) -> Vec<String> {
    let mut known = BTreeMap::new();
    let mut clashes = Vec::new();
    for resource in resources {
        let Ok(Some(kind)) = cdi::kind(resource) else { continue };
        // `a/b-c` and `a-b/c` would share a file, too.
        let file = kind.as_str().replace('/', "-");
        if let Some(first) = known.insert(file, &resource.name) {
            clashes.push(format!(
                "`{}`: `allocate.cdi.write.kind` ({kind}) is that of `{first}`; give one of them another",
                resource.name
            ));
        }
    }
    clashes
}

/// What a container with devices of two resources gets by chance.
pub(super) fn between(resources: &[Resource]) -> Vec<String> {
    let mut known: BTreeMap<(&str, String), (&Resource, String)> = BTreeMap::new();
    let mut clashes = Vec::new();
    for resource in resources {
        for (what, name, value) in claims(resource) {
            match known.get(&(what, name.clone())) {
                Some((first, _)) if first.name == resource.name => {}
                // The same for both, whichever is taken.
                Some((_, same)) if *same == value && !template::varies(&value) => {}
                Some((first, _)) => clashes.push(format!(
                    "`{}` and `{}` both set {what} `{name}`: a container with devices of both gets one of the two \
                     by chance",
                    first.name, resource.name
                )),
                None => {
                    known.insert((what, name), (resource, value));
                }
            }
        }
    }
    clashes
}

/// Names of the container that the resource sets, with what it sets them to.
fn claims(resource: &Resource) -> Vec<(&'static str, String, String)> {
    let allocate = &resource.allocate;
    let mut claims = Vec::new();
    for (name, text) in &allocate.env {
        claims.push(("the variable", name.clone(), text.clone()));
    }
    for (name, text) in &allocate.annotations {
        claims.push(("the annotation", name.clone(), text.clone()));
    }
    if let Some(path) = allocate.node.container_path.as_ref().filter(|path| !template::varies(path)) {
        // Which device it is differs.
        claims.push(("the path", path.clone(), "${path}".to_owned()));
    }
    for device in &allocate.devices {
        let host = device.host_path.to_string_lossy().into_owned();
        let container = device.container_path.as_ref().map(|path| path.to_string_lossy().into_owned());
        claims.push(("the path", container.unwrap_or_else(|| host.clone()), host));
    }
    for mount in &allocate.mounts {
        claims.push(("the path", mount.container_path.clone(), mount.host_path.clone()));
    }
    claims
}
