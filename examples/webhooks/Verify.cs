// Verify a webhook of the marketplace: Webhook.Verify throws unless the request is signed and at most 5 minutes old.
// Uses .NET 8 or later alone. Pass the body as it came, before any JSON is read. Run it by `dotnet run Verify.cs` (.NET 10).
using System.Security.Cryptography;
using System.Text;

try
{
    using var input = new MemoryStream();
    Console.OpenStandardInput().CopyTo(input);
    string Header(string name) => Environment.GetEnvironmentVariable(name) ?? "";
    Webhook.Verify(Header("SECRET"), Header("WEBHOOK_ID"), Header("WEBHOOK_TIMESTAMP"), Header("WEBHOOK_SIGNATURE"), input.ToArray());
    Console.WriteLine("verified");
    return 0;
}
catch (CryptographicException error)
{
    Console.Error.WriteLine($"refused: {error.Message}");
    return 1;
}

public static class Webhook
{
    private const long ToleranceSeconds = 300;

    public static void Verify(string secret, string id, string timestamp, string signatures, byte[] body)
    {
        if (!long.TryParse(timestamp, out var sent) || Math.Abs(DateTimeOffset.UtcNow.ToUnixTimeSeconds() - sent) > ToleranceSeconds)
            throw new CryptographicException("the timestamp is missing or more than 5 minutes away");
        var key = Convert.FromBase64String(secret.StartsWith("whsec_") ? secret[6..] : secret);
        var content = Encoding.UTF8.GetBytes($"{id}.{timestamp}.").Concat(body).ToArray();
        var expected = HMACSHA256.HashData(key, content);
        foreach (var signature in signatures.Split(' '))
        {
            var parts = signature.Split(',', 2);
            var decoded = new byte[64];
            if (parts.Length == 2 && parts[0] == "v1" && Convert.TryFromBase64String(parts[1], decoded, out var length)
                && CryptographicOperations.FixedTimeEquals(decoded.AsSpan(0, length), expected))
                return;
        }
        throw new CryptographicException("no signature fits");
    }
}
