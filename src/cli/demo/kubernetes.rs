pub(super) async fn run() -> Result<(), super::AnyError> {
    Ok(())
}
