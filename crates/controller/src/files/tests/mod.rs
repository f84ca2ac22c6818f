mod corpus;
mod directory;
mod documents;
mod measure;
mod watch;

/// A VirtualService of this name and address.
fn web(name: &str, address: &str) -> String {
    format!(
        "apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata: {{namespace: shop, name: {name}}}\nspec:\n  \
         addresses: [{address}]\n  ports: [{{port: 80}}]\n  endpoints: [{{address: 10.0.0.7}}]\n"
    )
}
