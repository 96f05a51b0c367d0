# Verify a webhook of the marketplace: `verify` raises unless the request is signed and at most 5 minutes old.
# Uses Ruby's standard library alone. Pass the body as it came, before any JSON is read.
require "openssl"

TOLERANCE_SECONDS = 300

def verify(secret, headers, body)
  id = headers["webhook-id"].to_s
  timestamp = headers["webhook-timestamp"].to_s
  if !timestamp.match?(/\A\d+\z/) || (Time.now.to_i - timestamp.to_i).abs > TOLERANCE_SECONDS
    raise ArgumentError, "the timestamp is missing or more than 5 minutes away"
  end
  key = secret.delete_prefix("whsec_").unpack1("m")
  expected = OpenSSL::HMAC.digest("SHA256", key, "#{id}.#{timestamp}.".b + body.b)
  headers["webhook-signature"].to_s.split(" ").each do |signature|
    version, text = signature.split(",", 2)
    decoded = text.to_s.unpack1("m")
    next unless version == "v1" && decoded.bytesize == expected.bytesize
    return if OpenSSL.fixed_length_secure_compare(decoded, expected)
  end
  raise ArgumentError, "no signature fits"
end

if __FILE__ == $PROGRAM_NAME
  headers = %w[webhook-id webhook-timestamp webhook-signature].to_h { |name| [name, ENV[name.upcase.tr("-", "_")]] }
  begin
    verify(ENV.fetch("SECRET"), headers, $stdin.binmode.read)
  rescue ArgumentError => e
    abort("refused: #{e.message}")
  end
  puts "verified"
end
