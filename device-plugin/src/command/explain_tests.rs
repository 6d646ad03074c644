use super::*;
use crate::discover::made::Made;

#[test]
fn a_resource_is_explained_source_by_source() {
    let made = Made::new();
    made.node("ttyS0", false, (4, 64)).fifo("/dev/ttyS1").link("/dev/console0", "ttyS0");
    let text = "resources: [{name: a.b/c, replicas: 2, devices: [{path: {glob: [/dev/console0, '/dev/ttyS*']}}, \
                {path: {glob: [/dev/console0]}}]}]";
    let config = Config { host: made.host(), ..serde_saphyr::from_str(text).unwrap() };
    let explanation = explain(&config, "a.b/c").unwrap();
    let dev = made.at("/dev").display().to_string();
    assert_eq!(
        explanation.to_text().replace(&dev, "HOST/dev"),
        r#"a.b/c: 1 device, each 2 times

path: {"glob":["/dev/console0","/dev/ttyS*"]}
  path:/dev/console0: healthy
    name  console0
    node  /dev/console0 -> /dev/ttyS0 (c 4:64)
  not taken, the nearest first:
    /dev/ttyS0  is in already, as `/dev/console0`
    /dev/ttyS1  it is a FIFO, not a character device or a block device
  watched: HOST/dev

path: {"glob":["/dev/console0"]}
  path:/dev/console0: found by a source above
  watched: HOST/dev
"#
    );
    assert!(explanation.is_fine());
    assert_eq!(explanation.to_json()["sources"][0]["devices"][0]["name"], "console0");
}
