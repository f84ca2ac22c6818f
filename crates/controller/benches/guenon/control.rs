//! placeholder
pub(crate) fn measure(_report: &mut crate::report::Report, _quick: bool) -> anyhow::Result<()> {
    Ok(())
}
