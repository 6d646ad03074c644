//! The words of `install` and `uninstall`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use crate::role::{OWN, REFERENCE};

/// This program, even where its file was replaced or removed since it started (proc_pid_exe(5)).
pub(crate) const OURSELVES: &str = "/proc/self/exe";

/// Puts the program into the runtime's folder of plugins, or upgrades it there; with the pods' subnets, makes the
/// network, too.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  nodeplug-cni install --pod-cidr 10.244.1.0/24                 # program and network, where the runtime looks
  nodeplug-cni install --pod-cidr 10.244.1.0/24,fd00:1::/64 --cluster-cidr 10.244.0.0/16,fd00::/48
  kubectl get node $(hostname) -o json | nodeplug-cni install --pod-cidr-file -
  nodeplug-cni install                                          # the program alone
  nodeplug-cni install --as-reference                           # in place of the reference's plugins
  nodeplug-cni uninstall

The programs that had the names are kept in DIR/.nodeplug-originals. Running pods are not touched.")]
pub struct Install {
    /// Under the reference plugins' names as well: bridge, ptp, host-local, portmap …
    #[arg(long)]
    pub as_reference: bool,
    /// Of the reference's names, only these.
    #[arg(long, value_delimiter = ',', requires = "as_reference", value_name = "NAME",
        value_parser = PossibleValuesParser::new(REFERENCE.map(|(name, _)| name)))]
    pub only: Vec<String>,
    /// The program to install.
    #[arg(long, hide = true, default_value = OURSELVES)]
    pub from: PathBuf,
    /// The node's root folder, where it is mounted elsewhere or not booted; all other paths lie below it.
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// The pods' subnets on this node, one for each family: makes the network. [env: NODEPLUG_POD_CIDRS]
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub pod_cidr: Vec<String>,
    /// The same from a file: a Node object or a list of them (JSON, YAML), flannel's subnet.env, or CIDRs by lines;
    /// `-` is stdin.
    #[arg(long, value_name = "FILE")]
    pub pod_cidr_file: Option<PathBuf>,
    /// The same from the API server, by the socket of `kubectl proxy --unix-socket`; waits until the node has them.
    #[arg(long, value_name = "SOCKET")]
    pub kube_api: Option<PathBuf>,
    /// The node's name [default: the host's] [env: NODE_NAME]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The folder of networks [default: the runtime's]
    #[arg(long, value_name = "DIR")]
    pub conf_dir: Option<PathBuf>,
    /// The network's file. Runtimes take the first by name.
    #[arg(long, value_name = "NAME", default_value = "10-nodeplug.conflist")]
    pub conflist: String,
    /// The network's name.
    #[arg(long, value_name = "NAME", default_value = "pods")]
    pub network: String,
    /// How pods are connected.
    #[arg(long, value_enum, default_value_t = Mode::Routed)]
    pub mode: Mode,
    /// The pods' MTU [default: that of the node's default route]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Destinations that see the pods' own addresses: all pods' subnets of the cluster.
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub cluster_cidr: Vec<String>,
    /// The network's cniVersion [default: the newest that the runtime understands]
    #[arg(long, value_name = "VERSION")]
    pub cni_version: Option<String>,
    /// Stay until SIGTERM, and put back what other installers take away or overwrite.
    #[arg(long, conflicts_with = "dry_run")]
    pub stay: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Where it is refused: into another folder than the runtime's, over a network of somebody else, with subnets
    /// that are in use.
    #[arg(long)]
    pub force: bool,
    /// The folder [default: the runtime's]
    pub dir: Option<PathBuf>,
}

/// How pods are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// By a route to each pod.
    Routed,
    /// By a bridge.
    Bridge,
}

/// Takes out the network that an install made, then the program, and brings back what had the names before.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  nodeplug-cni uninstall --dry-run
  nodeplug-cni uninstall
  nodeplug-cni uninstall --only bridge,host-local /opt/cni/bin")]
pub struct Uninstall {
    /// Only these names.
    #[arg(long, value_delimiter = ',', value_name = "NAME",
        value_parser = PossibleValuesParser::new(REFERENCE.map(|(name, _)| name).into_iter().chain([OWN])))]
    pub only: Vec<String>,
    /// The node's root folder, where it is mounted elsewhere or not booted.
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// The folder of networks [default: the runtime's]
    #[arg(long, value_name = "DIR")]
    pub conf_dir: Option<PathBuf>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Also while pods need the program to be deleted.
    #[arg(long)]
    pub force: bool,
    /// The folder [default: where it was installed, else the runtime's]
    pub dir: Option<PathBuf>,
}
