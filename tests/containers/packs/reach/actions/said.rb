require "json"
puts JSON.generate(JSON.parse($stdin.read))
