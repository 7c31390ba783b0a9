# The formula for Homebrew. A release fills in the version and the checksums (.ci/manifests).
class Tsdp < Formula
  desc "Keeps the settings of Tailscale devices as declared in YAML"
  homepage "https://github.com/tailnet-dev/tsdp"
  version "@VERSION@"
  license "Apache-2.0"

  on_macos do
    depends_on arch: :arm64
    url "https://github.com/tailnet-dev/tsdp/releases/download/v@VERSION@/tsdp-darwin-arm64.tar.gz"
    sha256 "@DARWIN_ARM64@"
  end

  on_linux do
    on_intel do
      url "https://github.com/tailnet-dev/tsdp/releases/download/v@VERSION@/tsdp-linux-amd64.tar.gz"
      sha256 "@LINUX_AMD64@"
    end
    on_arm do
      url "https://github.com/tailnet-dev/tsdp/releases/download/v@VERSION@/tsdp-linux-arm64.tar.gz"
      sha256 "@LINUX_ARM64@"
    end
  end

  def install
    bin.install "tsdp"
    bin.install_symlink "tsdp" => "kubectl-tsdp"
    generate_completions_from_executable(bin/"tsdp", "completions")
    system bin/"tsdp", "man", "--out", man1
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/tsdp --version")
  end
end
