//! The shipped manifests, as every scenario varies them, before any of them is applied.

use e2e::app::Bookinfo;
use e2e::cluster::Cluster;

#[test]
fn s00_the_shipped_manifest_is_varied() {
    let cluster = Cluster::from_env().unwrap();
    let whole = Bookinfo::page().with_parts().manifest(&cluster).unwrap();
    assert_eq!(whole.matches("image: bookaccess.local/standin:1").count(), 6, "{whole}");
    assert!(whole.contains("node-role.kubernetes.io/control-plane: \"\"") && whole.contains("nodePort: 30080"));
    assert!(whole.contains("value: reviews-v1\n") && whole.contains("value: ratings\n"));
    let page = Bookinfo { cluster_ip: true, ..Bookinfo::page().on("w1").on_loopback() };
    let page = page.manifest(&cluster).unwrap();
    assert_eq!(page.matches("kind: Deployment").count(), 1, "{page}");
    assert_eq!(page.matches("kind: Service\n").count(), 1, "{page}");
    for absent in ["nodePort", "control-plane", "Probe", "registry.istio.io"] {
        assert!(!page.contains(absent), "{absent} in {page}");
    }
    assert!(page.contains("kubernetes.io/hostname: w1") && page.contains("value: 127.0.0.1:9080"));
}
